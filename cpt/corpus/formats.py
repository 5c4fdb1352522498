"""Files as records: JSON lines, Parquet, CSV and plain text, compressed or not, local or at any address that fsspec knows.

What cannot be read is a `Bad` in its place, never an exception and never nothing: who reads decides by policy.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec
import zstandard

from cpt.config.data import SourceConfig
from cpt.core.errors import Problem, UserError

CHECKOUT = Path(__file__).parents[2]
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_EXCERPT = 200
_DAMAGE = (OSError, EOFError, ValueError, csv.Error, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What readers raise for files that are cut short, damaged, or something else than their name says."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record and where it stands: `file:line`, `file:row` or `file`."""

    where: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """A record, or the rest of a file, that cannot be read."""

    where: str
    what: str
    excerpt: str = ""
    """How it begins."""


Found = Record | Bad


def expand(paths: Sequence[str]) -> list[str]:
    """Files of paths and patterns, each pattern's in order of name. Raises `UserError` with each that matches nothing."""
    found, missing = list[str](), list[str]()
    for path in paths:
        (found.extend(some) if (some := _matches(path)) else missing.append(path))
    if missing:
        raise UserError([Problem(where="paths", what=f"{path} not found", why="the source reads it", fix="paths=[<existing files>]") for path in missing])
    return found


def read_records(path: str, needed: Sequence[str], max_bytes: int, part: tuple[int, int] | None = None) -> Iterator[Found]:
    """Records of one file, in order; `needed`: fields without which a table is of no use; `part`: of plain JSON lines, those that begin in these bytes.

    Raises `UserError` for a kind of file that is not known.
    """
    kind = PurePosixPath(_plain(path)).suffix
    if kind not in _READERS:
        known = ", ".join(_READERS)
        raise UserError(
            Problem(where=path, what=f"ends in {kind or 'nothing'}", why=f"the ending says how a file is read: {known}", fix="rename or convert it")
        )
    try:
        with _opened(path) as file:
            read = part is not None
            for found in _jsonl_part(file, path, max_bytes, *part) if part else _READERS[kind](file, path, needed, max_bytes):
                read = True
                yield found
            if not read:
                yield Bad(path, "is empty")
    except _DAMAGE as error:
        yield Bad(path, f"cannot be read to its end: {type(error).__name__}: {error}")


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Decompressed. zstd's frames are read by ourselves: fsspec ends with the first, and what several writers put into a file would be lost."""
    if not path.endswith(".zst"):
        with fsspec.open(local(path), "rb", compression="infer") as file:
            yield file
        return
    with fsspec.open(local(path), "rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as frames:
        yield io.BufferedReader(frames)


def local(path: str) -> str:
    """A path as given from the working directory, else from the checkout; an address as it is."""
    return path if "://" in path or Path(path).exists() else str(CHECKOUT / path)


def _matches(path: str) -> list[str]:
    if "://" in path:
        system, place = fsspec.core.url_to_fs(path)
        return sorted(system.unstrip_protocol(one) for one in system.glob(place))
    if not any(sign in path for sign in "*?["):
        return [path] if Path(local(path)).is_file() else []
    for folder in (Path(), CHECKOUT):
        if some := sorted(
            str(one) for one in (Path(path).parent if Path(path).is_absolute() else folder).glob(Path(path).name if Path(path).is_absolute() else path)
        ):
            return some
    return []


def _plain(path: str) -> str:
    """Without the ending of its compression."""
    return path.removesuffix(suffix) if path.endswith(suffix := PurePosixPath(path).suffix) and suffix in _COMPRESSED else path


def _jsonl(file: BinaryIO, path: str, _needed: Sequence[str], max_bytes: int) -> Iterator[Found]:
    for number, (line, size) in enumerate(_lines(file, max_bytes), 1):
        if line.strip():
            yield _json_record(line, size, f"{path}:{number}", max_bytes)


def _jsonl_part(file: BinaryIO, path: str, max_bytes: int, start: int, stop: int) -> Iterator[Found]:
    """Lines count from the part's first: how many come before it nobody has counted."""
    place, begin = start, f"{path}:{start}+" if start else f"{path}:"
    if start:
        file.seek(start - 1)
        place += sum(size for _, size in _lines(file, max_bytes, most=1)) - 1
    for number, (line, size) in enumerate(_lines(file, max_bytes), 1):
        if place >= stop:
            return
        place += size
        if line.strip():
            yield _json_record(line, size, f"{begin}{number}", max_bytes)


def _lines(file: BinaryIO, max_bytes: int, most: int = -1) -> Iterator[tuple[bytes, int]]:
    """(a line, of one that is too long its beginning; how many bytes it has), so that no line fills the memory."""
    while most and (line := file.readline(max_bytes + 1)):
        size, rest = len(line), line
        while not rest.endswith(b"\n") and (rest := file.readline(_EXCERPT * 4096)):
            size += len(rest)
        yield line, size
        most -= 1


def _json_record(line: bytes, size: int, where: str, max_bytes: int) -> Found:
    if size > max_bytes:
        return Bad(where, _too_long(size, max_bytes), _excerpt(line))
    try:
        value = json.loads(line.strip())
    except UnicodeDecodeError as error:
        return Bad(where, f"is not UTF-8: {error.reason} at byte {error.start}", _excerpt(line))
    except json.JSONDecodeError as error:
        return Bad(where, f"is not JSON: {error.msg} at column {error.colno}", _excerpt(line))
    return Record(where, value) if isinstance(value, dict) else Bad(where, "is no JSON object", _excerpt(line))


def _parquet(file: BinaryIO, path: str, needed: Sequence[str], _max_bytes: int) -> Iterator[Found]:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(file)
    if missing := [name for name in needed if name not in table.schema_arrow.names]:
        yield Bad(path, f"has no column {', '.join(missing)}, only {', '.join(table.schema_arrow.names)}")
        return
    row = 0
    for batch in table.iter_batches(batch_size=1000):
        for fields in batch.to_pylist():
            row += 1
            yield Record(f"{path}:{row}", fields)


def _csv(file: BinaryIO, path: str, needed: Sequence[str], max_bytes: int) -> Iterator[Found]:
    csv.field_size_limit(max_bytes)
    rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter="\t" if _plain(path).endswith(".tsv") else ",", strict=True)
    if missing := [name for name in needed if name not in (rows.fieldnames or [])]:
        yield Bad(path, f"has no column {', '.join(missing)}, only {', '.join(rows.fieldnames or [])}")
        return
    for fields in rows:
        where = f"{path}:{rows.line_num}"
        whole = None not in fields and None not in fields.values()
        yield Record(where, fields) if whole else Bad(where, f"has another number of cells than the {len(rows.fieldnames or [])} columns")


def _text(file: BinaryIO, path: str, _needed: Sequence[str], max_bytes: int) -> Iterator[Found]:
    content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        yield Bad(path, _too_long(f"more than {max_bytes}", max_bytes), _excerpt(content))
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Bad(path, f"is not UTF-8: {error.reason} at byte {error.start}", _excerpt(content))
        return
    if text:
        yield Record(path, {"text": text, "id": PurePosixPath(_plain(path)).name})


_READERS: dict[str, Callable[[BinaryIO, str, Sequence[str], int], Iterator[Found]]] = {
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _text,
    ".md": _text,
}


def _too_long(held: object, most: int) -> str:
    return f"holds {held} bytes; corpus.max_document_bytes is {most}"


def _excerpt(content: bytes) -> str:
    return content[:_EXCERPT].decode("utf-8", errors="replace")


def needed_fields(source: SourceConfig) -> list[str]:
    """Of a table's columns, those that text cannot be made without."""
    return [] if source.template else [source.fields.text]
