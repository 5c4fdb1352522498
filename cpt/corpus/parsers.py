"""Text out of unpacked packages, one parser per kind of file. No R, no dictd, no groff needed."""

from __future__ import annotations

import gzip
import re
import string
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cpt.config.data import Parser
from cpt.corpus.documents import Document
from cpt.corpus.roff import strip_roff

_CHAPTER = re.compile(r"^(?:chapter|volume)\s+(?:[ivxlc]+|\d+)\b[.\s]*$", re.IGNORECASE)
_DIGITS = {character: number for number, character in enumerate(string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/")}
# A line break inside a sense; a new sense starts with a part of speech or a number and a colon.
_WRAP = re.compile(r"[ \t]*\n[ \t]+(?=\S)(?!(?:(?:n|v|adj|adv) )?\d*\s?:)")


def parse_novels(folder: Path) -> Iterator[Document]:
    """R data packages (`Rdata.rdb`) of character vectors, a novel each: one document per chapter."""
    for path in sorted(folder.rglob("data/Rdata.rdb")):
        for number, blob in enumerate(_inflate(path.read_bytes())):
            yield from _chapters(_r_strings(blob), number)


def _inflate(data: bytes) -> Iterator[bytes]:
    """R's lazy-load format: each object is 4 bytes of length and a zlib stream."""
    while data:
        stream = zlib.decompressobj()
        yield stream.decompress(data[4:])
        data = stream.unused_data


def _r_strings(blob: bytes) -> list[str]:
    """A serialized character vector (R's XDR format 3): type 16, count, then (flags, length, bytes) each; length -1 is NA."""
    encoding_length = struct.unpack_from(">i", blob, 14)[0]
    position = 18 + encoding_length
    flags, count = struct.unpack_from(">ii", blob, position)
    if not blob.startswith(b"X\n") or flags & 0xFF != 16:
        return []
    position += 8
    strings = []
    for _ in range(count):
        length = max(0, struct.unpack_from(">i", blob, position + 4)[0])
        strings.append(blob[position + 8 : position + 8 + length].decode("utf-8", errors="replace"))
        position += 8 + length
    return strings


def _chapters(lines: list[str], number: int) -> Iterator[Document]:
    """Chapters of one novel with their paragraphs unwrapped; what stands before the first chapter is its title page."""
    title = next((line.strip() for line in lines if line.strip()), f"novel {number}").title()
    starts = [index for index, line in enumerate(lines) if _CHAPTER.match(line.strip())]
    for chapter, (start, stop) in enumerate(zip(starts, [*starts[1:], len(lines)], strict=True), 1):
        text = _paragraphs(lines[start:stop])
        if text.count("\n\n"):  # a volume heading directly before a chapter heading has no text of its own
            yield Document(id=f"{title}/{chapter}", text=text, title=f"{title}, {chapter}")


def _paragraphs(lines: list[str]) -> str:
    blocks = "\n".join(line.strip() for line in lines).split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks if block.strip())


def parse_dictd(folder: Path) -> Iterator[Document]:
    """dictd databases: `.index` has headword, offset and length in base 64; `.dict.dz` is gzip. One document per entry."""
    for index in sorted(folder.rglob("dictd/*.index")):
        data = gzip.decompress(index.with_suffix(".dict.dz").read_bytes())
        seen: set[int] = set()
        for line in index.read_text(encoding="utf-8", errors="replace").splitlines():
            headword, offset, length = line.split("\t")[:3]
            start = _number(offset)
            if start in seen or headword.startswith(("00-database", "00database")):
                continue
            seen.add(start)
            text = data[start : start + _number(length)].decode("utf-8", errors="replace")
            yield Document(id=f"{index.stem}:{start}", text=_WRAP.sub(" ", text).strip(), title=headword)


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value


def parse_man(folder: Path) -> Iterator[Document]:
    """Compressed manual pages; pages that only include another one, or are in the mdoc language, have no text here."""
    for path in sorted(folder.rglob("man/**/*.gz")):
        if path.is_symlink():
            continue
        text = strip_roff(gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace"))
        if text:
            yield Document(id=path.name.removesuffix(".gz"), text=text, title=path.name.removesuffix(".gz"))


PARSERS: dict[Parser, Callable[[Path], Iterator[Document]]] = {Parser.novels: parse_novels, Parser.dictd: parse_dictd, Parser.man: parse_man}
