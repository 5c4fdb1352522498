"""Typed artifacts that pass from stage to stage through files. A stage writes its record, the next one reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceShare(Artifact):
    """One source's part in a mixture; `weight` is its share of all tokens."""

    name: str
    group: str
    language: str
    weight: float
    planned_tokens: int
    """Over the whole run, those read before the plan was made included."""
    available_tokens: int
    epoch_tokens: int
    """That one epoch trains on: whole windows only."""
    epoch_cap: float
    """Epochs that are allowed over the whole run."""
    sha256: str
    """Of the tokens that are read: `SplitRecord.sha256`."""

    @property
    def epochs(self) -> float:
        """How often it is read."""
        return self.planned_tokens / self.epoch_tokens if self.epoch_tokens else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MixturePlan(Artifact):
    """Shares derived from a mixture section and a manifest for a token budget."""

    train_tokens: int
    shares: list[SourceShare]
    data_hash: str

    @property
    def weights(self) -> dict[str, float]:
        """Source name -> share of all tokens."""
        return {share.name: share.weight for share in self.shares}

    @property
    def reading(self) -> list[tuple[str, float, str]]:
        """What decides which sample comes next: (source, weight, hash of its tokens) of each source that is read, in order."""
        return [(share.name, share.weight, share.sha256) for share in self.shares if share.weight > 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataPosition(Artifact):
    """Where training stands in its data, saved with every checkpoint."""

    fingerprint: str
    """`cpt.data.data_fingerprint` of what was read so far."""
    next_sample: int
    """Number of the sample that is read next: those trained on, and those skipped."""
    tokens: dict[str, int]
    """Source -> tokens trained on: sequences x `train.sequence_length`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord(Artifact):
    """Who made a run directory, from what."""

    name: str
    fingerprint: str
    created: str
    command: list[str]
    versions: dict[str, str]
    mixture: MixturePlan


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceLoss(Artifact):
    """Held-out loss of one source, nats a token, over `tokens` tokens; bits per byte by the split's own tokens/bytes."""

    name: str
    group: str
    loss: float
    bits_per_byte: float
    tokens: int
    text_sha256: str
    """Of the token ids: losses of other texts are no change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkScore(Artifact):
    """One multiple-choice benchmark through lm-eval."""

    name: str
    group: str
    accuracy: float
    standard_error: float
    items: int
    chance: float
    correct: dict[str, bool]
    """Item hash -> answered correctly; pairs two evaluations item by item."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRecord(Artifact):
    """Held-out losses and benchmarks of one set of weights. label: before | after."""

    label: str
    step: int
    weights: str
    """What was evaluated: the base folder or a checkpoint."""
    losses: list[SourceLoss]
    benchmarks: list[BenchmarkScore]
    seconds: float

    def group_loss(self, group: str) -> float:
        """Mean over the group's sources, each source counting once."""
        chosen = [loss.loss for loss in self.losses if loss.group == group]
        return sum(chosen) / len(chosen)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityRecord(Artifact):
    """The step-0 gate: engine against the Hugging Face base on fixed text, fp32."""

    logit_difference: float
    """Largest difference of a logit, as a share of the largest logit (or absolute, when that is below one)."""
    tolerance: float
    tokens: int
    engine_loss: float
    base_loss: float
    layout: str

    @property
    def passed(self) -> bool:
        """False also when a logit is not a number, which compares as neither smaller nor greater."""
        return self.logit_difference <= self.tolerance


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRecord(Artifact):
    """What a run will be and cost, before a GPU is taken. Bytes, seconds, hours; FLOPs in the causal convention."""

    layout: dict[str, int]
    """tensor, pipeline, data, world, nodes."""
    steps: int
    train_tokens: int
    tokens_per_step: int
    parameters: int
    memory: dict[str, int]
    """Bytes of the fullest rank by part: weights, gradients, optimizer, activations, logits, total."""
    flops_per_token: float
    step_seconds: float
    hours: float
    gpu_hours: float
    checkpoints: int
    checkpoint_bytes: int
    disk_bytes: int
    mixture: MixturePlan
    valid_nodes: list[int]
    """Node counts near the chosen one that keep the global batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRecord(Artifact):
    """A Hugging Face folder that answers as the engine does."""

    step: int
    checkpoint: str
    logit_difference: float
    """Largest difference of a logit, as a share of the largest logit (or absolute, when that is below one)."""
    tolerance: float
    sample: str
    """What transformers generated from it."""
    files: dict[str, str]
    """Name -> SHA-256."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow(Artifact):
    """One trial of a sweep. state: queued | running | done | failed; losses are None until done."""

    index: int
    fingerprint: str
    overrides: list[str]
    settings: dict[str, Any]
    """Dotted path -> value, for the sweep's keys."""
    state: str
    domain_loss: float | None
    general_loss: float | None
    rises: dict[str, float] = field(default_factory=dict)
    """General source -> rise of its held-out loss over the base, nats a token."""

    @property
    def forgotten(self) -> tuple[str, float] | None:
        """The general source that lost most, and how much: a mean would hide German behind a dictionary that gained."""
        return max(self.rises.items(), key=lambda item: item[1], default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRecord(Artifact):
    """A submitted sweep (`sweep.json`)."""

    name: str
    job: str
    """Array job id."""
    command: list[str]
    trials: list[list[str]]
    """Overrides of each trial, by index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepTable(Artifact):
    """A finished sweep: every trial and the decision."""

    name: str
    rows: list[TrialRow]
    base_domain_loss: float | None
    base_general_loss: float | None
    """Of the base, before the first step; None when no trial evaluated it."""
    forgetting_limit: float
    chosen: int | None
    reason: str
    notes: list[str] = field(default_factory=list)
