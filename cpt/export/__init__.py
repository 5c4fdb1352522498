"""Checkpoint -> Hugging Face folder that answers as the engine does, or no folder at all."""

from cpt.export.export import export_run

__all__ = ["export_run"]
