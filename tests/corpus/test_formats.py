"""The same records out of every kind of file; and whatever is wrong with a file stands in its place."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from cpt.core.errors import UserError
from cpt.corpus.formats import Bad, Record, expand, read_records

ROWS = [{"id": "a", "text": "one\ntwo", "price": "3"}, {"id": "b", "text": "zwölf, „drei“", "price": ""}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
MOST = 1000


def read(path: Path | str, needed: tuple[str, ...] = ("text",)) -> list[Record | Bad]:
    return list(read_records(str(path), needed, MOST))


def write_csv(path: Path, delimiter: str = ",") -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(LINES),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "a.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(LINES)),
    "a.jsonl.bz2": lambda path: path.write_bytes(bz2.compress(LINES)),
    "a.jsonl.xz": lambda path: path.write_bytes(lzma.compress(LINES)),
    "a.parquet": lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path),
    "a.csv": write_csv,
    "a.tsv": lambda path: write_csv(path, "\t"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_same_records(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    found = read(path)
    assert [record.fields for record in found if isinstance(record, Record)] == ROWS
    assert all(record.where.startswith(f"{path}:") for record in found)


@pytest.mark.parametrize(("ending", "compress"), [("zst", zstandard.compress), ("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_what_several_writers_have_compressed_is_read_to_its_end(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / f"a.jsonl.{ending}").write_bytes(compress(LINES) + compress(LINES))
    assert [found.fields for found in read(tmp_path / f"a.jsonl.{ending}") if isinstance(found, Record)] == ROWS * 2


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("once\n\nupon")
    (tmp_path / "story.txt.gz").write_bytes(gzip.compress(b"a time"))
    assert read(tmp_path / "story.txt") == [Record(f"{tmp_path}/story.txt", {"text": "once\n\nupon", "id": "story.txt"})]
    assert read(tmp_path / "story.txt.gz") == [Record(f"{tmp_path}/story.txt.gz", {"text": "a time", "id": "story.txt"})]


@pytest.mark.parametrize(
    ("name", "content", "where", "what"),
    [
        ("a.jsonl", b"", "", "is empty"),
        ("a.txt", b"", "", "is empty"),
        ("a.jsonl", b'{"text": "\xff"}\n', ":1", "is not UTF-8: invalid start byte at byte 10"),
        ("a.jsonl", b'{"text": \n', ":1", "is not JSON: Expecting value at column 9"),
        ("a.jsonl", b"[1]\n", ":1", "is no JSON object"),
        ("a.jsonl", b'{"text": "' + b"x" * MOST + b'"}\n', ":1", "holds 1013 bytes; corpus.max_document_bytes is 1000"),
        ("a.txt", b"x" * (MOST + 1), "", "holds more than 1000 bytes; corpus.max_document_bytes is 1000"),
        ("a.txt", b"abc\xff", "", "is not UTF-8: invalid start byte at byte 3"),
        ("a.jsonl.gz", gzip.compress(LINES * 99)[:-20], "", "cannot be read to its end: EOFError"),
        ("a.jsonl.gz", b"no archive", "", "cannot be read to its end: BadGzipFile"),
        ("a.jsonl.zst", b"no archive", "", "cannot be read to its end: "),
        ("a.parquet", b"no table", "", "cannot be read to its end: ArrowInvalid"),
        ("a.csv", b"id,body\n1,x\n", "", "has no column text, only id, body"),
        ("a.csv", b"id,text\n1\n2,x\n", ":2", "has another number of cells than the 2 columns"),
        ("a.csv", b"id,text\n1,\xff\n", "", "cannot be read to its end: UnicodeDecodeError"),
    ],
)
def test_what_cannot_be_read_stands_in_its_place(tmp_path: Path, name: str, content: bytes, where: str, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    bad = next(found for found in read(tmp_path / name) if isinstance(found, Bad))
    assert bad.where == f"{tmp_path}/{name}{where}" and bad.what.startswith(what)


def test_a_bad_line_costs_no_other(tmp_path: Path) -> None:
    first, second = LINES.splitlines(keepends=True)
    (tmp_path / "a.jsonl").write_bytes(first + b"{\n" + b"\n" + second)
    assert [(type(found), found.where.rpartition(":")[2]) for found in read(tmp_path / "a.jsonl")] == [(Record, "1"), (Bad, "2"), (Record, "4")]


def test_a_table_with_another_schema_is_said_once(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"] * 5}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [Bad(f"{tmp_path}/a.parquet", "has no column text, only body")]


def test_patterns_and_addresses(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "a.txt"):
        (tmp_path / name).write_bytes(LINES)
    assert expand([f"{tmp_path}/*.jsonl", f"{tmp_path}/a.txt"]) == [f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl", f"{tmp_path}/a.txt"]
    with fsspec.open("memory://bucket/x.jsonl.gz", "wb") as file:
        file.write(gzip.compress(LINES))
    (address,) = expand(["memory://bucket/*.gz"])
    assert [record.fields for record in read(address) if isinstance(record, Record)] == ROWS
    assert expand(["tests/assets/novels.jsonl"]) == ["tests/assets/novels.jsonl"]


def test_what_matches_nothing_or_is_of_no_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        expand([f"{tmp_path}/*.jsonl", f"{tmp_path}/no.txt"])
    assert [problem.what for problem in caught.value.problems] == [f"{tmp_path}/*.jsonl not found", f"{tmp_path}/no.txt not found"]
    (tmp_path / "a.docx").touch()
    with pytest.raises(UserError, match=r"ends in \.docx"):
        read(tmp_path / "a.docx")
