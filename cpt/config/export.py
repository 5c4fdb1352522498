"""The `export` section: how a checkpoint becomes a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cpt.config.section import Section, positive
from cpt.core.errors import Problem


@dataclass(kw_only=True, slots=True)
class ExportConfig(Section):
    """`cpt export` reads it from the run's config."""

    shard_bytes: int = 4_000_000_000
    """Largest size of a file of weights; a tensor that is larger has one of its own. So much is in memory at a time, and one layer."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "shard_bytes")
