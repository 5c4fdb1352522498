"""Megatron's `.bin`/`.idx` token files, in numpy: byte-identical to megatron.core's IndexedDatasetBuilder, readable by it and by us.

::

    .bin   tokens of all documents, one after the other
    .idx   "MMIDIDX\\0\\0" | version 1 (u64) | dtype code (u8) | sequences (u64) | documents + 1 (u64)
           | sequence lengths (i32) | byte offsets (i64) | first sequence of each document, and the end (i64)

We write one sequence per document.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from cpt.core.artifacts import write_bytes
from cpt.core.errors import MissingInput, Problem, UserError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPE_CODES: dict[str, int] = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "uint16": 8}
_HEADER = struct.Struct("<9sQBQQ")

Tokens = npt.NDArray[np.int64]


def token_dtype(vocab_size: int) -> str:
    """Megatron's `DType.optimal_dtype`."""
    return "uint16" if vocab_size < 65500 else "int32"


def bin_path(prefix: Path) -> Path:
    """`<prefix>.bin`"""
    return prefix.with_name(f"{prefix.name}.bin")


def idx_path(prefix: Path) -> Path:
    """`<prefix>.idx`"""
    return prefix.with_name(f"{prefix.name}.idx")


def ids_path(prefix: Path) -> Path:
    """`<prefix>.ids`: the id of each document, a JSON string a line."""
    return prefix.with_name(f"{prefix.name}.ids")


class IndexedWriter:
    """Context manager: documents in, at a clean end `<prefix>.bin` and then `<prefix>.idx` out."""

    def __init__(self, prefix: Path, dtype: str) -> None:
        self._prefix = prefix
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._lengths: list[int] = []
        self._temp: Path
        self._file: BinaryIO

    def __enter__(self) -> Self:
        self._prefix.parent.mkdir(parents=True, exist_ok=True)
        self._temp = bin_path(self._prefix).with_name(f".{self._prefix.name}.bin.{os.uname().nodename}.{os.getpid()}.tmp")
        self._file = open(self._temp, "wb")
        return self

    def add(self, tokens: npt.ArrayLike) -> None:
        """Append one document, its end-of-document token included. Raises OverflowError for an id that the file's type cannot hold."""
        wide = np.asarray(tokens, dtype=np.int64)
        array = wide.astype(self._dtype)
        if not np.array_equal(array, wide):
            raise OverflowError(f"{self._prefix}: token ids go up to {wide.max()}, which is more than {self._dtype.name} holds")
        self._file.write(array.tobytes())
        self._lengths.append(array.size)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.replace(self._temp, bin_path(self._prefix))
            write_bytes(idx_path(self._prefix), index_bytes(self._lengths, self._dtype))  # syncs the folder, too
        else:
            self._temp.unlink(missing_ok=True)


def index_bytes(lengths: npt.ArrayLike, dtype: np.dtype[Any]) -> bytes:
    """All of the `.idx` of documents of so many tokens each, as this suite writes it."""
    sizes = np.asarray(lengths, dtype="<i4")
    pointers = np.zeros(len(sizes), dtype="<i8")
    np.cumsum(sizes[:-1], dtype="<i8", out=pointers[1:])
    documents = np.arange(len(sizes) + 1, dtype="<i8")
    header = _HEADER.pack(MAGIC, VERSION, DTYPE_CODES[dtype.name], len(sizes), len(documents))
    return header + sizes.tobytes() + (pointers * dtype.itemsize).tobytes() + documents.tobytes()


@dataclass(frozen=True, slots=True)
class Place:
    """A document in its shard: its number there, and the number of its first token in the `.bin`."""

    prefix: Path
    document: int
    token: int


@dataclass(frozen=True, eq=False, slots=True)
class _Shard:
    """One pair of files; where it stands among the others: token `start`, document `first`."""

    prefix: Path
    dtype: np.dtype[Any]
    start: int
    first: int


class IndexedTokens:
    """The documents of several shards as one row, memory-mapped. `offsets[i] : offsets[i + 1]` are the tokens of document i."""

    def __init__(self, prefixes: Sequence[Path]) -> None:
        """Raises `MissingInput`, and `UserError` when files do not hold what they promise or differ in type."""
        self.prefixes = list(prefixes)
        ends, shards, start, first = [np.zeros(1, dtype=np.int64)], list[_Shard](), 0, 0
        for prefix in prefixes:
            dtype, offsets = _open_index(prefix)
            ends.append(offsets[1:] + start)
            shards.append(_Shard(prefix, dtype, start, first))
            start, first = start + int(offsets[-1]), first + len(offsets) - 1
        self._shards, self.offsets = shards, np.concatenate(ends)
        self._starts, self._firsts = [shard.start for shard in shards], [shard.first for shard in shards]
        self.dtype = _same_dtype(shards)

    def __len__(self) -> int:
        """Documents."""
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        """Tokens in all documents."""
        return int(self.offsets[-1])

    def read(self, start: int, stop: int) -> Tokens:
        """Tokens `start : stop` of the whole row, across shards."""
        start, stop = min(max(start, 0), self.tokens), min(stop, self.tokens)
        if start >= stop:
            return np.empty(0, dtype=np.int64)
        number, last = bisect_right(self._starts, start) - 1, bisect_left(self._starts, stop)
        parts = [_mapped(shard)[max(0, start - shard.start) : stop - shard.start] for shard in self._shards[number:last]]
        return np.concatenate(parts, dtype=np.int64)

    def document(self, index: int) -> Tokens:
        """All tokens of one document."""
        return self.read(int(self.offsets[index]), int(self.offsets[index + 1]))

    def locate(self, index: int) -> Place:
        """Where document `index` lies."""
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        shard = self._shards[bisect_right(self._firsts, index) - 1]
        return Place(shard.prefix, index - shard.first, int(self.offsets[index]) - shard.start)


@lru_cache(maxsize=256)
def _mapped(shard: _Shard) -> npt.NDArray[Any]:
    """Tokens of one shard, mapped when they are first read: a map keeps a file descriptor, and a process may have no more than 1,024 of them."""
    path = bin_path(shard.prefix)
    return np.asarray(np.memmap(path, dtype=shard.dtype, mode="r")) if path.stat().st_size else np.empty(0, shard.dtype)


def _same_dtype(shards: Sequence[_Shard]) -> str:
    """Raises `UserError` when they are of several."""
    for shard in shards:
        if shard.dtype != shards[0].dtype:
            what = f"holds {shard.dtype.name} tokens"
            why = f"{bin_path(shards[0].prefix)} of the same split holds {shards[0].dtype.name}: they are not of one preparation"
            raise UserError(Problem(where=str(bin_path(shard.prefix)), what=what, why=why, fix="cpt prepare"))
    return shards[0].dtype.name if shards else "uint16"


def _open_index(prefix: Path) -> tuple[np.dtype[Any], npt.NDArray[np.int64]]:
    """As `read_index`; the `.bin` must be there, with just as many tokens."""
    for path in (idx_path(prefix), bin_path(prefix)):
        if not path.is_file():
            raise MissingInput(path=path, why="the manifest promises it", fix="cpt prepare")
    dtype, offsets = read_index(idx_path(prefix))
    promised, found = int(offsets[-1]) * dtype.itemsize, bin_path(prefix).stat().st_size
    if promised != found:
        why = f"its .idx promises {promised}: it was cut or changed"
        raise UserError(Problem(where=str(bin_path(prefix)), what=f"has {found} bytes", why=why, fix="cpt prepare"))
    return dtype, offsets


def read_index(path: Path) -> tuple[np.dtype[Any], npt.NDArray[np.int64]]:
    """dtype, and token offset of each document's start with the end of the last. Raises `UserError` for what is no index."""
    data = path.read_bytes()
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise _damaged(path, "is no Megatron index")
    _, version, code, sequences, marks = _HEADER.unpack_from(data)
    names = {number: name for name, number in DTYPE_CODES.items()}
    if version != VERSION or code not in names:
        raise _damaged(path, f"has version {version}, dtype code {code}")
    if len(data) < _HEADER.size + 12 * sequences + 8 * marks:
        raise _damaged(path, f"is too short for {sequences} sequences")
    lengths = np.frombuffer(data, "<i4", sequences, _HEADER.size)
    documents = np.frombuffer(data, "<i8", marks, _HEADER.size + 12 * sequences)
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return np.dtype(names[code]).newbyteorder("<"), ends[documents]


def _damaged(path: Path, what: str) -> UserError:
    return UserError(Problem(where=str(path), what=what, why="it was cut, changed or not written by this suite or Megatron", fix="cpt prepare"))
