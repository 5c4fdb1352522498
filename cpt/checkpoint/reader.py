"""Read a checkpoint: which tensors it holds, and any rectangle of one, whatever layout wrote it. Needs no process group.

::

    reader = CheckpointReader(folder)
    reader.names()                                              # weight.decoder.layers.self_attention.linear_qkv.weight, ...
    reader.read("weight.decoder.layers.mlp.linear_fc2.weight", (3, 0, 0), (1, hidden, ffn))   # layer 3 alone
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from cpt.checkpoint.chunks import Chunk
from cpt.checkpoint.records import Index, Stored, entry
from cpt.checkpoint.store import INDEX
from cpt.core.errors import CptError

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "U8": torch.uint8, "I64": torch.int64, "F64": torch.float64, "BOOL": torch.bool}
Box = tuple[Sequence[int], Sequence[int]]
"""(offset, sizes)"""


class CheckpointReader:
    """A complete checkpoint's tensors. Files are memory-mapped as they are needed; only what is asked for is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors = Index.load(folder / INDEX).tensors
        self._files: dict[str, Any] = {}

    def names(self) -> list[str]:
        """All tensors, sorted."""
        return sorted(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the global tensor; layers of one kind are stacked along its first axis."""
        return tuple(self._stored(name).shape)

    def read(self, name: str, offset: Sequence[int] | None = None, sizes: Sequence[int] | None = None) -> torch.Tensor:
        """A rectangle of a tensor, or all of it. Raises `CptError` when the checkpoint does not hold it."""
        stored = self._stored(name)
        sizes = stored.shape if sizes is None else sizes
        found = torch.empty(tuple(sizes), dtype=_DTYPES[stored.dtype])
        self._copy(stored, name, (offset or (0,) * len(sizes), sizes), found)
        self._files.clear()  # unmapped again: pages once read count as this process's memory
        return found

    def load(self, chunk: Chunk) -> None:
        """Fill the chunk's memory, in its own precision; rows of padding that the checkpoint lacks become zero."""
        stored = self._stored(chunk.name)
        if not chunk.padded and tuple(stored.shape) != chunk.shape:
            raise CptError(f"checkpoint {self.folder}: {chunk.name} is {tuple(stored.shape)}, the model's is {chunk.shape}")
        held = [max(0, min(base + size, end) - base) for base, size, end in zip(chunk.offset, chunk.sizes, stored.shape, strict=True)]
        target = chunk.data.view(chunk.sizes)
        if tuple(held) != chunk.sizes:
            target.zero_()
        self._copy(stored, chunk.name, (chunk.offset, held), target[tuple(slice(size) for size in held)])

    def _stored(self, name: str) -> Stored:
        if name not in self.tensors:
            raise CptError(f"checkpoint {self.folder} holds no tensor {name}")
        return self.tensors[name]

    def _copy(self, stored: Stored, name: str, wanted: Box, target: torch.Tensor) -> None:
        covered = 0
        for file, *box in zip(stored.files, stored.offsets, stored.sizes, strict=True):
            if not (common := _intersect(wanted, (box[0], box[1]))):
                continue
            source, place = (tuple(slice(a - base, b - base) for (a, b), base in zip(common, bases, strict=True)) for bases in (box[0], wanted[0]))
            values = self._open(file).get_slice(entry(name, box[0]))
            target[place].copy_(values[source] if source else values[:])
            covered += math.prod(b - a for a, b in common)
        if covered != math.prod(wanted[1]):
            raise CptError(f"checkpoint {self.folder} holds {covered} of the {math.prod(wanted[1])} values of {name} asked for")

    def _open(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = safe_open(self.folder / file, framework="pt")
        return self._files[file]


def files(index: Index, chunk: Chunk) -> set[str]:
    """Those of a checkpoint that the chunk would be loaded from."""
    if (stored := index.tensors.get(chunk.name)) is None:
        return set()
    return {file for file, *box in zip(stored.files, stored.offsets, stored.sizes, strict=True) if _intersect((chunk.offset, chunk.sizes), (box[0], box[1]))}


def _intersect(one: Box, other: Box) -> list[tuple[int, int]]:
    """[begin, end) along each axis; empty when they have nothing in common."""
    spans = [(max(a, b), min(a + m, b + n)) for a, m, b, n in zip(*one, *other, strict=True)]
    return spans if all(begin < end for begin, end in spans) else []
