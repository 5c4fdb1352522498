from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import pytest

from cpt.corpus.parsers import parse_dictd, parse_man, parse_novels
from cpt.corpus.roff import strip_roff


def r_object(lines: list[str | None]) -> bytes:
    """A character vector as R serializes it (XDR, format 3) in its lazy-load database."""
    body = b"X\n" + struct.pack(">iiii", 3, 0x00040201, 0x00030500, 5) + b"UTF-8" + struct.pack(">ii", 16, len(lines))
    for line in lines:
        data = b"" if line is None else line.encode()
        body += struct.pack(">ii", 0x00040009, -1 if line is None else len(data)) + data
    return struct.pack(">i", len(body)) + zlib.compress(body)


def test_novels_are_cut_into_chapters_and_unwrapped(tmp_path: Path) -> None:
    novel = [
        "THE MILL",
        "",
        "by A. N. Author",
        None,
        "VOLUME I",
        "",
        "CHAPTER I",
        "",
        "It was a",
        "cold night.",
        "",
        "Nobody spoke.",
        "",
        "Chapter 2",
        "",
        "Später.",
        "",
        "End.",
    ]
    other = ["OTHER", "", "Chapter 1", "", "One.", "", "Two."]
    path = tmp_path / "lib" / "data" / "Rdata.rdb"
    path.parent.mkdir(parents=True)
    path.write_bytes(r_object(novel) + r_object(other))
    texts = {document.id: document.text for document in parse_novels(tmp_path)}
    assert texts == {
        "The Mill/2": "CHAPTER I\n\nIt was a cold night.\n\nNobody spoke.",
        "The Mill/3": "Chapter 2\n\nSpäter.\n\nEnd.",
        "Other/1": "Chapter 1\n\nOne.\n\nTwo.",
    }


def test_dictd_entries_once_each(tmp_path: Path) -> None:
    entries = ["00-database-info\nmade by", "mill\n    n 1: a machine for\n         grinding\n    v 1: grind with\n         a mill", "sparrow\n    n : a bird"]
    data = "".join(entries).encode()
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(value: int) -> str:
        return digits[value // 64] + digits[value % 64]

    offsets = [0, len(entries[0]), len(entries[0]) + len(entries[1])]
    lines = [f"{entry.split(chr(10))[0]}\t{number(offset)}\t{number(len(entry))}" for entry, offset in zip(entries, offsets, strict=True)]
    lines.append(lines[1].replace("mill", "Mill"))  # a second headword for the same entry
    folder = tmp_path / "usr" / "share" / "dictd"
    folder.mkdir(parents=True)
    (folder / "wn.index").write_text("\n".join(lines) + "\n")
    (folder / "wn.dict.dz").write_bytes(gzip.compress(data))
    found = [(document.title, document.text) for document in parse_dictd(tmp_path)]
    assert found == [
        ("mill", "mill\n    n 1: a machine for grinding\n    v 1: grind with a mill"),
        ("sparrow", "sparrow\n    n : a bird"),
    ]


PAGE = r""".\" a comment
.TH LS 1 "2022"
.SH "WAS ES TUT"
ls \- \fBVerzeichnisse\fP \(aqauf\(aq listen \" to the end
.PP
.BR ls (1)
und
.I mehr
.TS
tab(:);
a:b
.TE
.IP \(bu 2
Punkt \[u00E9]\&.
.TP
\fB\-a\fP, \fI\,DATEI\/\fP
nicht \\ ignorieren
"""


def test_roff_becomes_paragraphs() -> None:
    assert strip_roff(PAGE).split("\n\n") == [
        "WAS ES TUT",
        "ls - Verzeichnisse 'auf' listen",
        "ls(1) und mehr",
        "• Punkt é.",
        "-a, DATEI nicht \\ ignorieren",
    ]


@pytest.mark.parametrize("source", [".so man1/ls.1\n", ".Dd May 1\n.Sh NAME\n.Nm ls\n", ""])
def test_roff_without_text_of_its_own(source: str) -> None:
    assert strip_roff(source) == ""


def test_roff_with_an_open_quote() -> None:
    assert strip_roff('.B "never closed\n') == "never closed"


def test_man_pages_are_found_links_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "usr" / "share" / "man" / "de" / "man1"
    folder.mkdir(parents=True)
    (folder / "ls.1.gz").write_bytes(gzip.compress(PAGE.encode()))
    (folder / "dir.1.gz").symlink_to("ls.1.gz")
    (folder / "vdir.1.gz").write_bytes(gzip.compress(b".so man1/ls.1\n"))
    assert [document.id for document in parse_man(tmp_path)] == ["ls.1"]
