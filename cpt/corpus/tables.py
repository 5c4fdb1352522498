"""Tables of documents and columns of numbers on disk: what stages leave for each other. Each file is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.parquet

from cpt.core.artifacts import sync_folder
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.corpus.documents import Document

AGAIN = "cpt prepare again: it makes what is missing"
_SCHEMA = pyarrow.schema([(field.name, pyarrow.bool_() if field.name == "truth" else pyarrow.large_string()) for field in fields(Document)])
_GROUP = 16_000_000
"""Bytes of text that are held before they are written."""


class DocumentWriter:
    """Context manager: documents in, at a clean end a Parquet file out. Equal documents give equal bytes."""

    def __init__(self, path: Path) -> None:
        self._path, self._temp = path, _temp(path)
        self._rows: list[tuple[Any, ...]] = []
        self._held = 0
        self._writer: Any = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pyarrow.parquet.ParquetWriter(self._temp, _SCHEMA, compression="zstd")
        return self

    def add(self, document: Document, size: int) -> None:
        """`size`: bytes of its text."""
        self._rows.append(astuple(document))
        self._held += size
        if self._held >= _GROUP:
            self._flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            _put(self._temp, self._path)
        else:
            self._temp.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            self._writer.write_table(
                pyarrow.Table.from_arrays([pyarrow.array(list(column), field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)
            )
        self._rows, self._held = [], 0


def read_documents(path: Path, columns: Sequence[str] = ()) -> Iterator[list[Document]]:
    """Batches of a table, in order; with `columns` the other fields are empty. Raises `MissingInput`, or `UserError` for a damaged file."""
    if not path.is_file():
        raise MissingInput(path=path, why="an earlier stage left it, and it is gone", fix=AGAIN)
    empty = {field.name: None if field.name == "truth" else "" for field in fields(Document)}
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024, columns=list(columns) or None):
            yield [Document(**(empty | row)) for row in batch.to_pylist()]
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(
            Problem(where=str(path), what=f"cannot be read: {error}", why="it was cut or damaged after it was written", fix=f"remove it; {AGAIN}")
        ) from None


def save_column(path: Path, values: npt.NDArray[Any]) -> None:
    """As `.npy`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = _temp(path)
    try:
        with open(temp, "wb") as file:
            # numpy's own writing says of a full disk how many numbers are missing, and not that it is full.
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values := np.ascontiguousarray(values)))
            file.write(values.data)
        _put(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def open_column(path: Path) -> npt.NDArray[Any]:
    """Memory-mapped. Raises `MissingInput`, or `UserError` for a damaged file."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise MissingInput(path=path, why="an earlier stage left it, and it is gone", fix=AGAIN) from None
    except (ValueError, EOFError) as error:
        raise UserError(
            Problem(where=str(path), what=f"cannot be read: {error}", why="it was cut or damaged after it was written", fix=f"remove it; {AGAIN}")
        ) from None


def _temp(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")


def _put(temp: Path, path: Path) -> None:
    with open(temp, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temp, path)
    sync_folder(path.parent)
