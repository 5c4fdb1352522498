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
    """Context manager: documents in, `<prefix>.bin` and, at a clean end, `<prefix>.idx` out."""

    def __init__(self, prefix: Path, dtype: str) -> None:
        self._prefix = prefix
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._lengths: list[int] = []
        self._file: BinaryIO

    def __enter__(self) -> Self:
        self._prefix.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(bin_path(self._prefix), "wb")
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
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            write_bytes(idx_path(self._prefix), self._index())

    def _index(self) -> bytes:
        lengths = np.array(self._lengths, dtype="<i4")
        pointers = np.zeros(len(lengths), dtype="<i8")
        np.cumsum(lengths[:-1], dtype="<i8", out=pointers[1:])
        documents = np.arange(len(lengths) + 1, dtype="<i8")
        header = _HEADER.pack(MAGIC, VERSION, DTYPE_CODES[self._dtype.name], len(lengths), len(documents))
        return header + lengths.tobytes() + (pointers * self._dtype.itemsize).tobytes() + documents.tobytes()


class IndexedTokens:
    """Memory-mapped documents of one prefix. `offsets[i] : offsets[i + 1]` are the tokens of document i."""

    def __init__(self, prefix: Path) -> None:
        """Raises `MissingInput`, and `UserError` when the files do not hold what they promise."""
        self.prefix = prefix
        for path in (idx_path(prefix), bin_path(prefix)):
            if not path.is_file():
                raise MissingInput(path=path, why="the manifest promises it", fix="cpt prepare")
        dtype, self.offsets = _read_index(idx_path(prefix))
        promised, found = int(self.offsets[-1]) * dtype.itemsize, bin_path(prefix).stat().st_size
        if promised != found:
            raise UserError(
                Problem(where=str(bin_path(prefix)), what=f"has {found} bytes", why=f"its .idx promises {promised}: it was cut or changed", fix="cpt prepare")
            )
        self._tokens: npt.NDArray[Any] = np.memmap(bin_path(prefix), dtype=dtype, mode="r") if found else np.empty(0, dtype)
        self.dtype = dtype.name

    def __len__(self) -> int:
        """Documents."""
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        """Tokens in all documents."""
        return len(self._tokens)

    def read(self, start: int, stop: int) -> Tokens:
        """Tokens `start : stop` of the whole file."""
        return self._tokens[start:stop].astype(np.int64)

    def document(self, index: int) -> Tokens:
        """All tokens of one document."""
        return self.read(int(self.offsets[index]), int(self.offsets[index + 1]))


def _read_index(path: Path) -> tuple[np.dtype[Any], npt.NDArray[np.int64]]:
    """dtype, and token offset of each document's start with the end of the last."""
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
