"""Shares of tokens, planned and refused before a run exists."""

from cpt.mix.plan import plan_mixture

__all__ = ["plan_mixture"]
