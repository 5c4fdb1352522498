"""Section `loader`: who brings rows from memory-mapped files to the device. Changes no result: loaders are exchanged at any sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cpt.config.section import Section, positive
from cpt.core.errors import Problem


class LoaderKind(StrEnum):
    """Both read ahead in a thread of the rank; they differ in who casts and copies."""

    memmap = "memmap"  # PyTorch, from pinned memory where there is a GPU
    dali = "dali"  # NVIDIA DALI's external_source: 32-bit rows are copied, and cast to 64 bits on the device


@dataclass(kw_only=True, slots=True)
class LoaderConfig(Section):
    """How rows are read."""

    kind: LoaderKind = LoaderKind.memmap
    depth: int = 2
    """Batches that are read before they are asked for."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "depth")
