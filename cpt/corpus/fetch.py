"""Debian's packages as files: fetched once, cut into parts, and from then on read like any other JSON lines."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from cpt.config.data import CorpusConfig, Reader, SourceConfig
from cpt.core.artifacts import Artifact, sha256_json, write_text
from cpt.corpus.debian import Mirror
from cpt.corpus.documents import Document, drawn
from cpt.corpus.readers import read_debian


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched(Artifact):
    """What one source's parts were made from."""

    origin: str
    parts: list[str]


def fetch(corpus: CorpusConfig, folder: Path, mirror: Mirror) -> dict[str, Fetched]:
    """Of every Debian source, parts below `folder`. Raises `UserError` without a mirror and a fallback."""
    return {name: _fetch(name, source, corpus, folder, mirror) for name, source in corpus.sources.items() if source.reader is not Reader.files}


def _fetch(name: str, source: SourceConfig, corpus: CorpusConfig, folder: Path, mirror: Mirror) -> Fetched:
    asked = [source.reader, source.packages, source.parser, source.fallback, source.share, corpus.seed, corpus.shard_bytes]
    place = folder / f"{name}-{sha256_json(asked)[:10]}"
    if (place / "fetched.json").is_file():
        return Fetched.load(place / "fetched.json")
    reading = read_debian(source, mirror, corpus.max_document_bytes)
    documents, origin = list(reading.documents), reading.origin
    if source.share < 1 and not origin.startswith("fallback"):  # samples are small as they are
        documents = [document for document in documents if drawn(corpus.seed, document.id, source.share)]
        origin += f"; {len(documents)} of {len(reading.documents)} documents drawn"
    temp = place.with_name(f".{place.name}.tmp")
    shutil.rmtree(temp, ignore_errors=True)
    parts = [f"part-{number:05d}.jsonl" for number in range(_write_parts(documents, temp, corpus.shard_bytes))]
    found = Fetched(origin=origin, parts=[str(place / part) for part in parts])
    found.save(temp / "fetched.json")
    shutil.rmtree(place, ignore_errors=True)
    temp.rename(place)
    return found


def _write_parts(documents: list[Document], folder: Path, most: int) -> int:
    """Returns how many; one at least."""
    number, lines, held = 0, list[str](), 0
    for document in documents:
        line = json.dumps(asdict(document), ensure_ascii=False) + "\n"
        if lines and held + len(line) > most:
            write_text(folder / f"part-{number:05d}.jsonl", "".join(lines))
            number, lines, held = number + 1, [], 0
        lines.append(line)
        held += len(line)
    write_text(folder / f"part-{number:05d}.jsonl", "".join(lines))
    return number + 1
