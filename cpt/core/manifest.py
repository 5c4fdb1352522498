"""A prepared corpus, as its `manifest.json` says it: what became of every document, and where the tokens are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cpt.core.artifacts import Artifact, sha256_json


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord(Artifact):
    """Some documents of a split, in one pair of token files. `prefix` is relative to the manifest's folder; `bytes` is UTF-8 text."""

    prefix: str
    documents: int
    bytes: int
    tokens: int
    """End-of-document tokens included."""
    sha256: str
    """Of the `.bin` file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRecord(Artifact):
    """One tokenized split of one source: its shards, one after the other."""

    shards: list[ShardRecord]

    @property
    def documents(self) -> int:
        """In all shards."""
        return sum(shard.documents for shard in self.shards)

    @property
    def bytes(self) -> int:
        """UTF-8 text of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def tokens(self) -> int:
        """In all shards, end-of-document tokens included."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def sha256(self) -> str:
        """Of the list of files: equal when every token and every cut between shards is."""
        return sha256_json([shard.sha256 for shard in self.shards])

    def prefixes(self, root: Path) -> list[Path]:
        """Of each shard's files, in order; `root` is the manifest's folder."""
        return [root / shard.prefix for shard in self.shards]

    def bits_per_byte(self, loss: float) -> float:
        """Nats a token -> bits a byte of UTF-8, which compares across tokenizers: loss / ln 2 x tokens / bytes."""
        return loss / math.log(2) * self.tokens / self.bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecord(Artifact):
    """What happened to one source: documents_read == sum(dropped) + train.documents + heldout.documents."""

    name: str
    group: str
    language: str
    license: str
    origin: str
    """What was really used: package names and versions, files, or a fallback."""
    documents_read: int
    bytes_read: int
    """UTF-8 text of those that could be read."""
    dropped: dict[str, int]
    """Reason -> documents."""
    scrubbed: dict[str, int]
    """Kind -> replacements, in documents that passed the filters."""
    train: SplitRecord
    heldout: SplitRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Contamination(Artifact):
    """What training text held of one set that the model is measured on; those documents are gone."""

    name: str
    items: int
    """That were looked for."""
    too_short: int
    """Items with fewer words than an n-gram, which cannot be."""
    common: int
    """Items that say nothing but what others of the set say, too, which cannot be either."""
    found: int
    """Items that some document held."""
    documents: int
    """That were left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierRecord(Artifact):
    """How a domain classifier did, and what it let through. Shares, from 0 to 1."""

    name: str
    backend: str
    positives: int
    negatives: int
    """Documents it learned from."""
    auc: float
    """Over documents it has not seen."""
    prevalence: float
    """Estimated share of domain text in the pool."""
    cut: float
    """Lowest score that stays."""
    kept: float
    """Share of the pool that does."""
    recall: float
    """Share of domain text it has not seen that would."""
    precision: float
    """Estimated share of domain text in what stays."""
    resolved: bool
    """Whether the pool tells its prevalence; else that and the precision are upper bounds."""
    true_recall: float | None = None
    true_precision: float | None = None
    """Where the truth about the pool is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord(Artifact):
    """One stage of preparation."""

    name: str
    units: int
    seconds: float
    """Of one core, all units together."""
    bytes: int
    """Of the files that it left."""
    sha256: str
    """Of all of them: of two preparations that differ, the first stage that does is where to look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataManifest(Artifact):
    """A prepared corpus."""

    corpus: str
    corpus_fingerprint: str
    """Hash of the corpus section that made it."""
    key: str
    """Hash of everything that decided its tokens: settings, input files, tokenizer, versions."""
    tokenizer_sha256: str
    """Of tokenizer.json."""
    vocab_size: int
    """The tokenizer's largest id and one; the model may have more rows."""
    end_of_document_id: int
    dtype: str
    """`uint16` or `int32`, as in the .idx header."""
    sources: list[SourceRecord]
    benchmarks: dict[str, int]
    """Name -> items."""
    contamination: list[Contamination]
    classifiers: list[ClassifierRecord]
    stages: list[StageRecord]
    versions: dict[str, str]

    @property
    def seconds(self) -> float:
        """Of one core, in all."""
        return sum(stage.seconds for stage in self.stages)

    def source(self, name: str) -> SourceRecord:
        """The source called `name`, which must exist."""
        return next(source for source in self.sources if source.name == name)

    @property
    def content_hash(self) -> str:
        """Hash of the data alone: tokenizer and every split."""
        splits = {source.name: (source.train.sha256, source.heldout.sha256) for source in self.sources}
        return sha256_json({"tokenizer": self.tokenizer_sha256, "splits": splits})
