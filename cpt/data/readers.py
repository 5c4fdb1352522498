"""Where documents come from. A reader says what it really used (`origin`); a missing mirror is a fallback, a missing file an error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt.config.data import CorpusConfig, Reader, SourceConfig
from cpt.core.artifacts import sha256_file
from cpt.core.errors import Problem, UserError
from cpt.data.debian import Mirror, MirrorUnavailable, installed_stanzas
from cpt.data.documents import Document
from cpt.data.parsers import PARSERS

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Reading:
    """All documents of one source, and what they were read from."""

    documents: list[Document]
    origin: str


def read_source(source: SourceConfig, mirror: Mirror) -> Reading:
    """Every document of a source. Raises `UserError` for a missing or malformed file."""
    match source.reader:
        case Reader.jsonl:
            return _jsonl(source.paths)
        case Reader.debian_catalogue:
            return _catalogue(source, mirror)
        case Reader.debian_packages:
            return _packages(source, mirror)


def check_files(corpus: CorpusConfig) -> None:
    """Raise `UserError` with every file that the corpus names and that is not there, before any work."""
    named = [
        (f"corpus.sources.{name}.{field}", path)
        for name, source in corpus.sources.items()
        for field in ("paths", "fallback")
        for path in getattr(source, field)
    ]
    missing = [(where, path) for where, path in named if not resolve(path).is_file()]
    if missing:
        raise UserError(
            [Problem(where=where, what=f"{path} not found", why="the source reads it", fix=f"{where}=[<existing files>]") for where, path in missing]
        )


def resolve(path: str) -> Path:
    """A corpus file: as given from the working directory, else from the checkout."""
    return Path(path) if Path(path).exists() else CHECKOUT / path


def file_origin(paths: Iterable[str]) -> str:
    """Names and hashes of files: changes when their content does."""
    return ", ".join(f"{path} (sha256 {sha256_file(resolve(path))[:12]})" for path in paths)


def _jsonl(paths: list[str]) -> Reading:
    return Reading([document for path in paths for document in _records(path)], file_origin(paths))


def _records(path: str) -> Iterator[Document]:
    """Lines of {"text", and optionally "id", "family", "title", "topic"}."""
    with open(resolve(path), encoding="utf-8", errors="strict") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _record(line, path, number)
        except UnicodeDecodeError as error:
            raise UserError(Problem(where=path, what=f"is not UTF-8: {error.reason}", why="text is read as UTF-8", fix=f"convert {path}")) from None


def _record(line: str, path: str, number: int) -> Document:
    where = f"{path}:{number}"
    try:
        value: Any = json.loads(line.strip())
    except json.JSONDecodeError as error:
        raise _malformed(where, f"is not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise _malformed(where, 'has no string "text"')
    fields = {name: str(value.get(name, "")) for name in ("family", "title", "topic")}
    return Document(id=str(value.get("id", f"{Path(path).name}:{number}")), text=value["text"], **fields)


def _malformed(where: str, what: str) -> UserError:
    return UserError(
        Problem(where=where, what=what, why='each line of a jsonl source is one JSON object with a string "text"', fix="repair or remove the line")
    )


def _catalogue(source: SourceConfig, mirror: Mirror) -> Reading:
    try:
        stanzas, origin = mirror.catalogue()
        return Reading(list(_listings(stanzas)), origin)
    except MirrorUnavailable as error:
        local = list(_listings(installed_stanzas()))
        samples = _jsonl(source.fallback)
        origin = f"fallback ({error}): {len(local)} installed packages' descriptions"
        return Reading(local + samples.documents, f"{origin}, {samples.origin}" if samples.origin else origin)


def _packages(source: SourceConfig, mirror: Mirror) -> Reading:
    parse = PARSERS[source.parser]
    try:
        unpacked = {package: mirror.unpack(package) for package in source.packages}
    except MirrorUnavailable as error:
        if not source.fallback:
            where = f"packages {', '.join(source.packages)}"
            raise UserError(
                Problem(where=where, what="cannot be had", why=str(error), fix="reach the mirror, or give the source a fallback=[<jsonl files>]")
            ) from None
        samples = _jsonl(source.fallback)
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
