"""Typed artifacts that pass from stage to stage through files. A stage writes its record, the next one reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cpt.core.artifacts import Artifact


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
    """What a run will be and cost, before a GPU is taken. Bytes, seconds, hours, GPU-hours; tokens a second of all ranks."""

    layout: dict[str, int]
    """tensor, context, pipeline, virtual, expert, data, world, nodes, micro_batches (of a replica in a step)."""
    steps: int
    train_tokens: int
    tokens_per_step: int
    parameters: int
    stages: list[dict[str, int]]
    """Bytes on one rank of each pipeline stage by part: weights, gradients, optimizer, activations, logits, buffers, total."""
    flops_per_token: float
    """Causal convention."""
    whole_flops_per_token: float
    """The masked half of attention counted too."""
    step: dict[str, float]
    """Seconds of a step by part; they add up to `step_seconds`."""
    step_seconds: float
    mfu: float
    """Causal convention, of bf16's peak."""
    tokens_per_second: float
    cost: dict[str, float]
    """GPU-hours by reason: steps, saves, failures, spares, production; they add up to `gpu_hours`."""
    hours: float
    """On the clock, from the first step to the last, without the first wait in the queue."""
    gpu_hours: float
    price: float
    """In the cluster's currency; 0 where no price of an hour is known."""
    megawatt_hours: float
    checkpoints: int
    checkpoint_bytes: int
    save_seconds: float
    """Until a checkpoint is durable."""
    blocking_seconds: float
    """That training waits for it."""
    disk_bytes: int
    mttf_hours: float
    """Between failures of any node; 0 where none are expected."""
    restarts: float
    ettr: float
    """Effective training time ratio: steps over all but production."""
    mixture: MixturePlan
    valid_nodes: list[int]
    """Node counts near the chosen one that keep the global batch."""

    @property
    def memory(self) -> dict[str, int]:
        """Of the stage that needs most."""
        return max(self.stages, key=lambda stage: stage["total"])


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
