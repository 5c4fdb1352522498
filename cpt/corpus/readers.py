"""Where documents come from. A reader says what it really used (`origin`); a missing mirror is a fallback, a missing file an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import fsspec

from cpt.config.data import CorpusConfig, Reader, SourceConfig
from cpt.core.artifacts import sha256_file
from cpt.core.errors import Problem, UserError
from cpt.corpus.debian import Mirror, MirrorUnavailable, installed_stanzas
from cpt.corpus.documents import Document
from cpt.corpus.formats import Bad, Record, expand, local, needed_fields, read_records
from cpt.corpus.parsers import PARSERS
from cpt.corpus.serialize import Serializer


@dataclass(frozen=True, slots=True)
class Reading:
    """All documents of one source, what they were read from, and what of that could not be read."""

    documents: list[Document]
    origin: str
    bad: list[Bad] = field(default_factory=list)


def read_source(source: SourceConfig, mirror: Mirror, max_bytes: int) -> Reading:
    """Every document of a source. Raises `UserError` for files that are not there or of no known kind."""
    match source.reader:
        case Reader.files:
            return _files(source, source.paths, max_bytes)
        case Reader.debian_catalogue:
            return _catalogue(source, mirror, max_bytes)
        case Reader.debian_packages:
            return _packages(source, mirror, max_bytes)


def check_files(corpus: CorpusConfig) -> None:
    """Raise `UserError` with every file that the corpus names and that is not there, before any work."""
    problems = []
    for name, source in corpus.sources.items():
        for kind in ("paths", "fallback"):
            try:
                expand(getattr(source, kind))
            except UserError as error:
                where = f"corpus.sources.{name}.{kind}"
                problems += [replace(problem, where=where, fix=f"{where}=[<existing files>]") for problem in error.problems]
    if problems:
        raise UserError(problems)


def file_origin(paths: Sequence[str]) -> str:
    """Names and hashes of files: changes when their content does. Of addresses, what their server says of them."""
    return ", ".join(f"{path} ({_version(path)})" for path in expand(paths))


def _version(path: str) -> str:
    if "://" not in path:
        return f"sha256 {sha256_file(Path(local(path)))[:12]}"
    system, place = fsspec.core.url_to_fs(path)
    return f"version {system.ukey(place)[:12]}"


def _files(source: SourceConfig, paths: Sequence[str], max_bytes: int) -> Reading:
    serializer, documents, bad = Serializer(source), list[Document](), list[Bad]()
    for path in expand(paths):
        for found in read_records(path, needed_fields(source), max_bytes):
            made = serializer.document(found) if isinstance(found, Record) else found
            (bad if isinstance(made, Bad) else documents).append(made)  # type: ignore[arg-type]
    return Reading(documents, file_origin(paths), bad)


def _catalogue(source: SourceConfig, mirror: Mirror, max_bytes: int) -> Reading:
    try:
        stanzas, origin = mirror.catalogue()
        return Reading(list(_listings(stanzas)), origin)
    except MirrorUnavailable as error:
        local = list(_listings(installed_stanzas()))
        samples = _files(source, source.fallback, max_bytes)
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
        samples = _files(source, source.fallback, max_bytes)
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
