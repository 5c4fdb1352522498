"""What is said about the bytes of a checkpoint: a receipt per rank, then one index and one record for the whole. Knows nothing about tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cpt.core.artifacts import Artifact, Sealed
from cpt.core.errors import CptError
from cpt.core.records import DataPosition


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord(Artifact):
    """One file as it was written."""

    bytes: int
    hash: str
    """xxh3_128, hex."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompleteRecord(Sealed):
    """Written last: what a complete checkpoint is, and the files that it holds."""

    step: int
    layout: str
    consumed_samples: int
    """Sequences trained on; the next sample has this number."""
    files: dict[str, FileRecord]
    optimizer_step: int
    """Updates that Adam has made; fewer than `step` when some were skipped."""
    train: dict[str, Any]
    """Training's own numbers, the same on all ranks."""

    @property
    def data(self) -> DataPosition:
        """What it was trained on, and where it goes on."""
        return DataPosition(**self.train["data"])

    @property
    def bytes(self) -> int:
        """All files together."""
        return sum(file.bytes for file in self.files.values())

    @property
    def domain_loss(self) -> float | None:
        """Held-out loss of the domain at this step, nats a token, where it was measured."""
        return self.train.get("domain_loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored(Artifact):
    """One global tensor: its rectangles, by position in three lists of equal length."""

    dtype: str
    """As safetensors writes it: F32, BF16, U8."""
    shape: list[int]
    files: list[str]
    offsets: list[list[int]]
    sizes: list[list[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt(Sealed):
    """What one rank has written, once all of it is on disk."""

    file: FileRecord
    optimizer_step: int
    """0 where this rank holds no optimizer state."""
    tensors: dict[str, Stored]


@dataclass(frozen=True, kw_only=True, slots=True)
class Index(Artifact):
    """Where every part of every tensor is."""

    tensors: dict[str, Stored]


def entry(name: str, offset: Iterable[int]) -> str:
    """What the rectangle of tensor `name` that begins at `offset` is called inside its file."""
    return f"{name}[{','.join(map(str, offset))}]"


def merge(receipts: Iterable[Receipt]) -> Index:
    """One index of all ranks' rectangles. Raises `CptError` unless they cover every tensor exactly: half a checkpoint is none."""
    tensors: dict[str, Stored] = {}
    for receipt in receipts:
        for name, part in receipt.tensors.items():
            whole = tensors.setdefault(name, Stored(dtype=part.dtype, shape=part.shape, files=[], offsets=[], sizes=[]))
            if (whole.shape, whole.dtype) != (part.shape, part.dtype):
                raise CptError(f"checkpoint: ranks disagree on {name}: {whole.dtype} {whole.shape} and {part.dtype} {part.shape}")
            whole.files.extend(part.files)
            whole.offsets.extend(part.offsets)
            whole.sizes.extend(part.sizes)
    for name, tensor in tensors.items():
        if (held := sum(map(math.prod, tensor.sizes))) != math.prod(tensor.shape):
            raise CptError(f"checkpoint: ranks hold {held} of the {math.prod(tensor.shape)} values of {name}")
    return Index(tensors=tensors)


def common_step(receipts: Iterable[Receipt]) -> int:
    """Adam's count. Raises `CptError` when ranks disagree: one count is kept for all parameters."""
    found = {receipt.optimizer_step for receipt in receipts} - {0}
    if len(found) > 1:
        raise CptError(f"checkpoint: ranks have made {sorted(found)} optimizer updates")
    return next(iter(found), 0)
