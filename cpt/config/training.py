"""Sections about training: `train`, `optimizer`, `schedule`, `checkpoint`, `evaluate`, `sweep`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cpt.config.anomaly import AnomalyConfig
from cpt.config.section import Section, fraction, positive
from cpt.core.errors import Problem


class Precision(StrEnum):
    """Compute precision; master weights and optimizer state are fp32 in both."""

    fp32 = "fp32"
    bf16 = "bf16"


class Fp8(StrEnum):
    """How Transformer Engine scales the matrix products of layers to fp8. Its delayed scaling is not among them: it has a past, which checkpoints would need."""

    none = "none"
    tensorwise = "tensorwise"  # one scale a tensor, taken of the tensor itself: Ada, Hopper and later
    blockwise = "blockwise"  # one scale for 128 values, or 128 x 128 of a weight: Hopper
    mxfp8 = "mxfp8"  # one scale for 32 values: Blackwell

    @property
    def multiple(self) -> int:
        """Both sides of every matrix divide by this."""
        return {"none": 1, "mxfp8": 32}.get(self.value, 16)


class Attention(StrEnum):
    """What computes core attention; they differ by rounding. What `auto` chose is printed and recorded."""

    auto = "auto"  # flash4, flash2 or sdpa: the first that this device can use
    flash2 = "flash2"  # package flash-attn
    flash4 = "flash4"  # package flash-attn-4 (flash_attn.cute): Hopper and Blackwell
    transformer_engine = "transformer_engine"  # its whole layers: norms and linears, too
    sdpa = "sdpa"  # torch's scaled_dot_product_attention


class Decay(StrEnum):
    """What the learning rate does after warm-up."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"
    wsd = "wsd"  # stays at the peak, falls at the end
    inverse_sqrt = "inverse_sqrt"  # cools down to a constant rate, anneals at the end: "infinite"


class DecayShape(StrEnum):
    """How the rate falls in the last `decay_share` of the budget."""

    linear = "linear"
    one_minus_sqrt = "one_minus_sqrt"
    exponential = "exponential"


@dataclass(kw_only=True, slots=True)
class TrainConfig(Section):
    """The batch and the budget. Steps are derived: `train_tokens // (global_batch_size * sequence_length)`."""

    global_batch_size: int = 8
    """Sequences a step, over all data-parallel ranks."""
    micro_batch_size: int = 1
    sequence_length: int = 256
    train_tokens: int = 0
    precision: Precision = Precision.bf16
    fp8: Fp8 = Fp8.none
    """The layers' matrix products, with precision=bf16 and attention=transformer_engine. Weights, norms, attention and logits stay in bf16."""
    attention: Attention = Attention.auto
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    """Share of hidden activations set to zero after attention and MLP, while training."""
    document_masking: bool = False
    """No token attends across an end-of-document token, and rotary positions restart behind it."""
    anomaly: AnomalyConfig = field(default_factory=AnomalyConfig)
    stats_interval: int = 0
    """Steps between norms of gradient, weights and update by layer, in `stats/`; 0 only when somebody touches `triggers/stats`."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "global_batch_size", "micro_batch_size", "sequence_length", "train_tokens")
        for name in ("hidden_dropout", "attention_dropout"):
            if not 0 <= (share := getattr(self, name)) < 1:
                yield Problem(where=name, what=f"is {share}", why="is a share, less than 1", fix=f"{name}=0.0")
        yield from self._attention_problems()
        yield from self._fp8_problems()
        if self.train_tokens > 0 and self.steps == 0:
            yield Problem(
                where="train_tokens",
                what=f"is {self.train_tokens}",
                why=f"one step reads {self.tokens_per_step} tokens",
                fix=f"train.train_tokens={self.tokens_per_step * 40}",
            )

    def _attention_problems(self) -> Iterator[Problem]:
        """What a backend cannot do, as far as it is known without a device."""
        name, flash = self.attention, (Attention.flash2, Attention.flash4)
        if name in flash and self.precision is Precision.fp32:
            yield Problem(where="attention", what=f"is {name}", why="it has no kernels for precision=fp32", fix="attention=sdpa")
        if name is Attention.flash4 and self.attention_dropout > 0:
            yield Problem(where="attention", what=f"is {name}", why=f"it cannot do attention_dropout={self.attention_dropout}", fix="attention=flash2")
        if name is Attention.transformer_engine and self.document_masking:
            yield Problem(where="attention", what=f"is {name}", why="its layers are not told where documents end (document_masking)", fix="attention=auto")

    def _fp8_problems(self) -> Iterator[Problem]:
        if self.fp8 is Fp8.none:
            return
        if self.precision is not Precision.bf16:
            yield Problem(
                where="precision", what=f"is {self.precision}", why=f"fp8={self.fp8} replaces products of bf16", fix="precision=bf16 or train.fp8=none"
            )
        if self.attention is not Attention.transformer_engine:
            why = f"only the layers of Transformer Engine can multiply in fp8={self.fp8}"
            yield Problem(where="attention", what=f"is {self.attention}", why=why, fix="attention=transformer_engine or train.fp8=none")

    @property
    def tokens_per_step(self) -> int:
        return self.global_batch_size * self.sequence_length

    @property
    def steps(self) -> int:
        return self.train_tokens // self.tokens_per_step

    @property
    def samples(self) -> int:
        return self.steps * self.global_batch_size


@dataclass(kw_only=True, slots=True)
class OptimizerConfig(Section):
    """AdamW. The peak learning rate is `lr_ratio` times the base's own published peak (e-Llama: 0.1)."""

    lr_ratio: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_grad: float = 1.0

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "lr_ratio", "epsilon", "clip_grad")
        yield from fraction(self, "beta1", "beta2")


@dataclass(kw_only=True, slots=True)
class ScheduleConfig(Section):
    """Warm-up and decay as shares of the whole budget, so that a sweep trial and a full run have the same shape."""

    decay: Decay = Decay.cosine
    warmup_share: float = 0.01
    min_lr_ratio: float = 0.1
    """Final learning rate over peak."""
    decay_share: float = 0.1
    """Of wsd and inverse_sqrt: the last part of the budget, in which the rate falls to its minimum; 0 never falls, so that the run can go on."""
    decay_shape: DecayShape = DecayShape.linear
    cooldown_share: float = 0.2
    """Of inverse_sqrt: the part of the budget after warm-up in which the rate falls to `constant_lr_ratio`."""
    constant_lr_ratio: float = 0.5
    """Of inverse_sqrt: the learning rate after the cooldown over peak."""
    rewarm_steps: int = 0
    """Steps from the rate before to the new one, after a resume with another schedule; 0 takes the new one at once."""

    def problems(self) -> Iterator[Problem]:
        yield from fraction(self, "warmup_share", "min_lr_ratio", "decay_share", "cooldown_share", "constant_lr_ratio")
        phases = ["warmup_share"] + ["decay_share"] * (self.decay in (Decay.wsd, Decay.inverse_sqrt)) + ["cooldown_share"] * (self.decay is Decay.inverse_sqrt)
        if (total := sum(getattr(self, name) for name in phases)) > 1:
            yield Problem(
                where=phases[-1], what=f"is {getattr(self, phases[-1])}", why=f"{' + '.join(phases)} = {total:g} of the budget", fix="shares of at most 1"
            )
        if self.decay is Decay.inverse_sqrt and self.constant_lr_ratio < self.min_lr_ratio:
            why = f"the rate would rise again to min_lr_ratio {self.min_lr_ratio:g}"
            yield Problem(where="constant_lr_ratio", what=f"is {self.constant_lr_ratio:g}", why=why, fix=f"constant_lr_ratio={self.min_lr_ratio:g}")
        if self.decay_shape is DecayShape.exponential and not self.min_lr_ratio > 0:
            yield Problem(where="min_lr_ratio", what=f"is {self.min_lr_ratio:g}", why="an exponential never gets to zero", fix="min_lr_ratio=0.01")
        if self.rewarm_steps < 0:
            yield Problem(where="rewarm_steps", what=f"is {self.rewarm_steps}", why="counts steps", fix="rewarm_steps=0")


@dataclass(kw_only=True, slots=True)
class CheckpointConfig(Section):
    """When state is saved and how much is kept."""

    interval: int = 10
    """Steps between saves; the last step always saves."""
    keep_last: int = 2
    keep_every: int = 0
    """Steps; a checkpoint whose step is a multiple of it stays. 0 keeps none for that."""
    keep_best: int = 0
    """How many with the lowest held-out domain loss stay, of those where it was measured."""
    asynchronous: bool = True
    """Training waits only while its state is copied to host memory; a thread writes it."""
    fast_folder: str = ""
    """A second tier, for frequent saves: on each node's own disk, with a copy on the next node's. An absolute path, which may begin with a variable of
    the nodes (`$TMPDIR`); each run has a folder of its own below. Empty: none. The last two are kept, so a disk holds six shares of its node."""
    fast_interval: int = 0
    """Steps between fast saves; none at a step that is saved in full anyway."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "interval", "keep_last")
        yield from self._fast_problems()
        if self.keep_every % self.interval if self.interval > 0 else False:
            multiple = -(-self.keep_every // self.interval) * self.interval
            yield Problem(where="keep_every", what=f"is {self.keep_every}", why=f"saves come every {self.interval} steps", fix=f"keep_every={multiple}")
        for name in ("keep_every", "keep_best"):
            if getattr(self, name) < 0:
                yield Problem(where=name, what=f"is {getattr(self, name)}", why="is a number of steps or checkpoints", fix=f"{name}=0")

    def _fast_problems(self) -> Iterator[Problem]:
        if not self.fast_folder:
            if self.fast_interval:
                why = "fast saves need a folder on each node's own disk"
                yield Problem(where="fast_interval", what=f"is {self.fast_interval}", why=why, fix="fast_interval=0 or checkpoint.fast_folder=/local/scratch")
            return
        if not re.match(r"/|\$\w|\$\{\w", self.fast_folder):
            why = "names a place on each node: an absolute path, or one that begins with a variable"
            yield Problem(where="fast_folder", what=repr(self.fast_folder), why=why, fix="fast_folder=/local/scratch or checkpoint.fast_folder='$TMPDIR'")
        if not 0 < self.fast_interval < self.interval:
            why = f"fast saves lie between the full ones, which come every {self.interval} steps"
            yield Problem(where="fast_interval", what=f"is {self.fast_interval}", why=why, fix=f"fast_interval={max(1, self.interval // 10)}")


@dataclass(kw_only=True, slots=True)
class EvaluateConfig(Section):
    """Held-out loss while training, and benchmarks before and after."""

    interval: int = 10
    """Steps between held-out evaluations; 0 evaluates only at the end. Step 0 (the base) is evaluated when `at_start`."""
    at_start: bool = True
    heldout_sequences: int = 8
    """Windows of `train.sequence_length` tokens per source, the same ones every time."""
    benchmark_items: int = 100
    """Items per multiple-choice benchmark; 0 takes all."""
    parity_tolerance: float = 1e-5
    """Largest allowed fp32 difference between logits of the loaded engine and of the Hugging Face base, as a share of the largest logit."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "heldout_sequences", "parity_tolerance")


@dataclass(kw_only=True, slots=True)
class SweepConfig(Section):
    """How a sweep decides: lowest domain loss among trials in which no general source rose more than `forgetting_limit`."""

    name: str = "sweep"
    forgetting_limit: float = 0.05
    """Allowed rise of any general source's held-out loss over the base, nats a token (CMR law's epsilon, arXiv 2407.17467)."""
    keys: list[str] = field(default_factory=lambda: ["optimizer.lr_ratio", "mixture.domain_share"])
    """Settings that are carried over to the chosen config."""
