"""`prepare`: a corpus section -> tokenized splits, benchmarks and a manifest. All or nothing, and nothing twice.

One process holds the corpus in memory: gigabytes, not terabytes.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict
from importlib.metadata import version

from cpt.config.data import CorpusConfig, Reader, SourceConfig
from cpt.config.run import RunConfig
from cpt.core.artifacts import sha256_file, write_text
from cpt.core.errors import UserError
from cpt.core.paths import DataPaths
from cpt.core.records import DataManifest, SourceRecord, SplitRecord
from cpt.core.units import count, size
from cpt.corpus.benchmarks import Material, build_benchmark
from cpt.corpus.building import building, publish
from cpt.corpus.debian import Mirror
from cpt.corpus.dedup import check_canary
from cpt.corpus.documents import Document
from cpt.corpus.readers import check_files, file_origin
from cpt.corpus.selection import Observe, Selection, select_documents
from cpt.corpus.tokens import DocumentTokenizer, open_tokenizer
from cpt.data.indexed import IndexedWriter, bin_path, ids_path
from cpt.data.manifest import corpus_fingerprint, open_manifest


def steps(corpus: CorpusConfig) -> int:
    """How many lines `prepare` will report."""
    return 2 * len(corpus.sources) + len(corpus.benchmarks)


def prepare(config: RunConfig, observe: Observe) -> DataManifest:
    """Make the corpus. Raises `UserError` for missing files, malformed lines, empty sources, a tokenizer that does not fit."""
    corpus, paths, began = config.corpus, config.runs.data(config.corpus.name), time.monotonic()
    check_files(corpus)
    check_canary(corpus.dedup)
    tokenizer = open_tokenizer(config)
    with building(paths) as new:
        mirror = Mirror(paths.root / ".fetch")
        selections = select_documents(corpus, mirror, observe)
        records = [_write(new, name, corpus.sources[name], selection, tokenizer, observe) for name, selection in selections.items()]
        benchmarks = _benchmarks(corpus, selections, mirror, new, observe)
        manifest = DataManifest(
            corpus=corpus.name,
            corpus_fingerprint=corpus_fingerprint(corpus),
            tokenizer_sha256=tokenizer.sha256,
            vocab_size=tokenizer.vocab_size,
            end_of_document_id=tokenizer.end_of_document,
            dtype=tokenizer.dtype,
            sources=records,
            benchmarks={name: items for name, (items, _) in benchmarks.items()},
            seconds=time.monotonic() - began,
            versions=_versions() | {f"benchmark {name}": origin for name, (_, origin) in benchmarks.items()},
        )
        publish(new, paths, manifest)
    return manifest


def finished(config: RunConfig) -> DataManifest | None:
    """The manifest when this very corpus stands, file by file, made with this tokenizer from these inputs; None when there is work."""
    try:
        manifest = open_manifest(config)
    except UserError:
        return None
    tokenizer, paths = open_tokenizer(config), config.runs.data(config.corpus.name)
    same_tokens = (manifest.tokenizer_sha256, manifest.end_of_document_id) == (tokenizer.sha256, tokenizer.end_of_document)
    splits = [split for source in manifest.sources for split in (source.train, source.heldout)]
    whole = all(sha256_file(bin_path(paths.root / split.prefix)) == split.sha256 for split in splits)
    built = all(paths.benchmark(name).is_file() for name in manifest.benchmarks)
    return manifest if same_tokens and whole and built and _same_inputs(config.corpus, manifest) else None


def _same_inputs(corpus: CorpusConfig, manifest: DataManifest) -> bool:
    """Have the files of `jsonl` sources changed? Packages are dated in the origin and fetched only once."""
    check_files(corpus)
    files = {name: file_origin(source.paths) for name, source in corpus.sources.items() if source.reader is Reader.files}
    return all(manifest.source(name).origin.startswith(origin) for name, origin in files.items())


def _write(new: DataPaths, name: str, source: SourceConfig, selection: Selection, tokenizer: DocumentTokenizer, observe: Observe) -> SourceRecord:
    train = _write_split(new, name, "train", selection.train, tokenizer)
    heldout = _write_split(new, name, "heldout", selection.heldout, tokenizer)
    if selection.reading.bad:
        write_text(new.quarantine(name), "".join(f"{json.dumps(asdict(bad))}\n" for bad in selection.reading.bad))
    observe(f"{name}: {count(train.tokens)} tokens to train on, {count(heldout.tokens)} held out, {size(train.bytes + heldout.bytes)}")
    return SourceRecord(
        name=name,
        group=source.group.value,
        language=source.language,
        license=source.license,
        origin=selection.reading.origin,
        documents_read=len(selection.reading.documents) + len(selection.reading.bad),
        bytes_read=selection.bytes_read,
        dropped=selection.dropped,
        train=train,
        heldout=heldout,
    )


def _write_split(new: DataPaths, source: str, split: str, documents: list[Document], tokenizer: DocumentTokenizer) -> SplitRecord:
    prefix = new.split(source, split)
    tokens = 0
    with IndexedWriter(prefix, tokenizer.dtype) as writer:
        for ids in tokenizer.encode([document.text for document in documents]):
            writer.add(ids)
            tokens += len(ids)
    write_text(ids_path(prefix), "".join(f"{json.dumps(document.id)}\n" for document in documents))
    return SplitRecord(
        prefix=str(prefix.relative_to(new.root)),
        documents=len(documents),
        bytes=sum(document.bytes for document in documents),
        tokens=tokens,
        sha256=sha256_file(bin_path(prefix)),
    )


def _benchmarks(corpus: CorpusConfig, selections: dict[str, Selection], mirror: Mirror, new: DataPaths, observe: Observe) -> dict[str, tuple[int, str]]:
    """Name -> (items, origin)."""
    heldout: dict[str, list[Document]] = {}
    for name, selection in selections.items():
        heldout.setdefault(corpus.sources[name].group.value, []).extend(document for document in selection.heldout if document.title)
    built = {}
    for name in corpus.benchmarks:
        built[name.value] = build_benchmark(name, Material(heldout, mirror, corpus.seed), new.benchmark(name.value))
        observe(f"benchmark {name}: {built[name.value][0]} items from {built[name.value][1]}")
    return built


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "datatrove", "spacy", "tokenizers", "xxhash")}
