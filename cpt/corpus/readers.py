"""Where documents come from: files, and Debian's packages. A reader says what it really used (`origin`); a missing mirror is a fallback, a missing file an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cpt.config.data import CorpusConfig, Reader, SourceConfig
from cpt.core.errors import Problem, UserError
from cpt.corpus.debian import Mirror, MirrorUnavailable, installed_stanzas
from cpt.corpus.documents import Document
from cpt.corpus.formats import Bad, Record, expand, needed_fields, read_records
from cpt.corpus.inputs import Piece
from cpt.corpus.parsers import PARSERS
from cpt.corpus.serialize import Serializer


@dataclass(frozen=True, slots=True)
class Reading:
    """All documents of a Debian source, and what they were read from."""

    documents: list[Document]
    origin: str


def read_file(path: str, source: SourceConfig, max_bytes: int, part: tuple[int, int] | None = None) -> Iterator[Document | Bad]:
    """Documents of one file, or of its lines that begin in `part`, and what cannot be read in its place. Raises `UserError` for a kind of file that is not known."""
    serializer = Serializer(source)
    for found in read_records(path, needed_fields(source), max_bytes, part):
        yield serializer.document(found) if isinstance(found, Record) else found


def read_piece(piece: Piece, source: SourceConfig, max_bytes: int) -> Iterator[Document | Bad]:
    """As `read_file`."""
    return read_file(piece.path, source, max_bytes, None if piece.whole else (piece.start, piece.stop))


def read_debian(source: SourceConfig, mirror: Mirror, max_bytes: int) -> Reading:
    """Every document of a Debian source. Raises `UserError` where neither mirror nor fallback is there."""
    return _catalogue(source, mirror, max_bytes) if source.reader is Reader.debian_catalogue else _packages(source, mirror, max_bytes)


def check_files(corpus: CorpusConfig) -> None:
    """Raise `UserError` with every file that the corpus names and that is not there, before any work."""
    named = {f"corpus.sources.{name}.{kind}": getattr(source, kind) for name, source in corpus.sources.items() for kind in ("paths", "fallback")} | {
        f"corpus.decontaminate.benchmarks.{name}": paths for name, paths in corpus.decontaminate.benchmarks.items()
    }
    problems = []
    for where, paths in named.items():
        try:
            expand(paths)
        except UserError as error:
            problems += [replace(problem, where=where, fix=f"{where}=[<existing files>]") for problem in error.problems]
    if problems:
        raise UserError(problems)


def _fallback(source: SourceConfig, max_bytes: int) -> Reading:
    """Samples. Raises `UserError` when one cannot be read."""
    found = [made for path in expand(source.fallback) for made in read_file(path, source, max_bytes)]
    if bad := next((made for made in found if isinstance(made, Bad)), None):
        raise UserError(Problem(where=bad.where, what=bad.what, why="is read where there is no mirror", fix="repair it, or another fallback=[<jsonl files>]"))
    return Reading([made for made in found if isinstance(made, Document)], ", ".join(expand(source.fallback)))


def _catalogue(source: SourceConfig, mirror: Mirror, max_bytes: int) -> Reading:
    try:
        stanzas, origin = mirror.catalogue()
        return Reading(list(_listings(stanzas)), origin)
    except MirrorUnavailable as error:
        local = list(_listings(installed_stanzas()))
        samples = _fallback(source, max_bytes)
        origin = f"fallback ({error}): {len(local)} installed packages' descriptions"
        return Reading(local + samples.documents, f"{origin}, {samples.origin}" if samples.origin else origin)


def _packages(source: SourceConfig, mirror: Mirror, max_bytes: int) -> Reading:
    parse = PARSERS[source.parser]
    try:
        unpacked = {package: mirror.unpack(package) for package in source.packages}
    except MirrorUnavailable as error:
        if not source.fallback:
            where = f"packages {', '.join(source.packages)}"
            raise UserError(
                Problem(where=where, what="cannot be had", why=str(error), fix="reach the mirror, or give the source a fallback=[<jsonl files>]")
            ) from None
        samples = _fallback(source, max_bytes)
        return Reading(samples.documents, f"fallback ({error}): {samples.origin}")
    documents = [document for folder, _ in unpacked.values() for document in parse(folder)]
    return Reading(documents, ", ".join(f"{package} {version}" for package, (_, version) in unpacked.items()))


def _listings(stanzas: Iterable[dict[str, str]]) -> Iterator[Document]:
    for stanza in stanzas:
        synopsis, _, body = stanza.get("Description", "").partition("\n")
        if not synopsis.strip() or not body.strip():
            continue
        package, section = stanza["Package"], stanza.get("Section", "misc").rpartition("/")[2]
        header = [f"Title: {package} - {synopsis.strip()}", f"Section: {section}"]
        if tags := " ".join(stanza.get("Tag", "").split()):
            header.append(f"Tags: {tags}")
        family = re.sub(r"\s*\(.*\)$", "", stanza.get("Source", "")) or package
        yield Document(id=package, text="\n".join(header) + "\n\n" + _unwrap(body), family=family, title=synopsis.strip(), topic=section)


def _unwrap(body: str) -> str:
    """Debian's description format: ` .` separates paragraphs, an indented line stands for itself, other lines flow."""
    lines: list[str] = []
    flowing = False
    for line in body.strip("\n").split("\n"):
        verbatim = line.startswith((" ", "*", "-"))
        if line.strip() in ("", "."):
            lines.append("")
        elif flowing and not verbatim:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.rstrip())
        flowing = line.strip() not in ("", ".") and not line.startswith(" ")
    return "\n".join(lines).strip()
