"""Save one rank's share: stage it in host memory, laid out as its file will be; then write, hash and sync that file, alone.

The file is safetensors. It is written from the staging buffer in one pass in which its hash is computed too, which the
library's own `save_file` cannot do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash

from cpt.checkpoint.chunks import Chunk
from cpt.checkpoint.records import FileRecord, Receipt, Stored, entry
from cpt.checkpoint.store import rank_file, receipt_file

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8", torch.int64: "I64", torch.float64: "F64", torch.bool: "BOOL"}
_PIECE = 8 * 2**20
"""Bytes given to the disk at a time."""


@dataclass(frozen=True)
class Staged:
    """A rank's share as it was at one moment; training may go on."""

    rank: int
    header: bytes
    data: memoryview
    optimizer_step: int
    tensors: dict[str, Stored]

    @property
    def bytes(self) -> int:
        """Of the file to come."""
        return len(self.header) + len(self.data)


class Staging:
    """Host memory that every save uses again; pinned where CUDA is. What is staged is valid until the next `stage`."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def stage(self, chunks: Sequence[Chunk], rank: int, optimizer_step: int) -> Staged:
        """Copy what this rank writes. Returns when the copy is whole, also on a GPU."""
        mine = sorted((chunk for chunk in chunks if chunk.written), key=lambda chunk: -chunk.data.itemsize)  # so that each begins at a multiple of its size
        self._reserve(sum(chunk.data.nbytes for chunk in mine))
        header, start = {}, 0
        for chunk in mine:
            end = start + chunk.data.nbytes
            # Always a copy: on a CPU `.to("cpu")` would give the live weights themselves.
            self._buffer[start:end].view(chunk.data.dtype).view(chunk.data.shape).copy_(chunk.data, non_blocking=True)
            header[entry(chunk.name, chunk.offset)] = {"dtype": _DTYPES[chunk.data.dtype], "shape": chunk.sizes, "data_offsets": [start, end]}
            start = end
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return Staged(rank, len(text).to_bytes(8, "little") + text, memoryview(self._buffer.numpy()[:start]), optimizer_step, _tensors(mine, rank))

    def _reserve(self, size: int) -> None:
        if self._buffer.nbytes < size:
            self._buffer = torch.empty(0, dtype=torch.uint8)  # let the old one go first
            self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=torch.cuda.is_available())


def write(folder: Path, staged: Staged) -> None:
    """Every byte on disk, then the receipt that says so. Raises OSError."""
    hasher = xxhash.xxh3_128(staged.header)
    with open(folder / rank_file(staged.rank), "wb", buffering=0) as file:
        write_all(file.fileno(), memoryview(staged.header))
        for start in range(0, len(staged.data), _PIECE):
            piece = staged.data[start : start + _PIECE]
            write_all(file.fileno(), piece)
            hasher.update(piece)
        os.fsync(file.fileno())
    Receipt(file=FileRecord(bytes=staged.bytes, hash=hasher.hexdigest()), optimizer_step=staged.optimizer_step, tensors=staged.tensors).save(
        folder / receipt_file(staged.rank)
    )


def write_all(descriptor: int, data: memoryview) -> None:
    """All of it, however little the disk takes at a time. Raises OSError."""
    while len(data):
        data = data[os.write(descriptor, data) :]


def _tensors(chunks: Sequence[Chunk], rank: int) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for chunk in chunks:
        kept = found.setdefault(chunk.name, Stored(dtype=_DTYPES[chunk.data.dtype], shape=list(chunk.shape), files=[], offsets=[], sizes=[]))
        kept.files.append(rank_file(rank))
        kept.offsets.append(list(chunk.offset))
        kept.sizes.append(list(chunk.sizes))
    return found
