"""Section `parallel`: how one model is cut over ranks, what is computed twice to save memory, and which messages hide behind computation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cpt.config.section import Section, positive
from cpt.core.errors import Problem


class Recompute(StrEnum):
    """Which activations are computed again in the backward pass instead of kept."""

    none = "none"
    selective = "selective"  # the parts of each layer named in `recompute_modules`
    full = "full"  # whole layers: `recompute_layers` of them


class RecomputeModule(StrEnum):
    """A part of a layer, by megatron-core's names.

    Of its others, layernorm fails without Transformer Engine, and does nothing in its dense layers, whose norms are inside matrices; moe_act
    needs its grouped experts; mla_up_proj compiles C++ on every node in the first backward pass.
    """

    core_attn = "core_attn"  # the kernel's own results; with context parallelism also the keys and values of all ranks
    mlp = "mlp"  # of dense layers
    moe = "moe"  # router, experts and shared experts
    shared_experts = "shared_experts"


class Fusion(StrEnum):
    """Whether norm, activation and cross entropy are one kernel each. The results differ by rounding."""

    auto = "auto"  # fused on GPUs, plain on CPUs
    plain = "plain"  # Hugging Face's arithmetic, operator by operator
    fused = "fused"


@dataclass(kw_only=True, slots=True)
class ParallelConfig(Section):
    """The layout. `data_parallel_size` is derived: world / (TP * CP * PP)."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    virtual_pipeline_size: int = 1
    """Model chunks per pipeline stage; above 1 the schedule is interleaved: a smaller bubble for more messages."""
    expert_parallel_size: int = 1
    """Ranks over which each layer's experts are spread, whole: a divisor of TP x DP. Of a model without experts, 1."""
    context_parallel_size: int = 1
    """Ranks that share each row's tokens: for rows whose activations are too long for one."""
    sequence_parallel: bool = False
    recompute: Recompute = Recompute.none
    recompute_modules: list[RecomputeModule] = field(default_factory=lambda: [RecomputeModule.core_attn])
    """Of recompute=selective."""
    recompute_layers: int = 0
    """Of recompute=full: the first so many layers of each model chunk; 0 all."""
    fusion: Fusion = Fusion.auto
    overlap_grad_reduce: bool = False
    overlap_param_gather: bool = False

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "tensor_parallel_size", "pipeline_parallel_size", "virtual_pipeline_size", "expert_parallel_size", "context_parallel_size")
        if self.virtual_pipeline_size > 1 and self.pipeline_parallel_size == 1:
            yield Problem(
                where="virtual_pipeline_size",
                what=f"is {self.virtual_pipeline_size}",
                why="with pipeline_parallel_size=1 there are no stages to interleave",
                fix="virtual_pipeline_size=1",
            )
        yield from self._recompute_problems()

    def _recompute_problems(self) -> Iterator[Problem]:
        if self.recompute is Recompute.selective and not self.recompute_modules:
            yield Problem(where="recompute_modules", what="is empty", why="recompute=selective computes again what it names", fix="recompute=none")
        if self.recompute is Recompute.selective and {RecomputeModule.moe, RecomputeModule.shared_experts} <= set(self.recompute_modules):
            why = "moe computes the shared experts again, too"
            yield Problem(where="recompute_modules", what="names moe and shared_experts", why=why, fix="recompute_modules=[moe]")
        if self.recompute_layers and (self.recompute is not Recompute.full or self.recompute_layers < 0):
            why = "counts whole layers, which recompute=full computes again"
            yield Problem(where="recompute_layers", what=f"is {self.recompute_layers}", why=why, fix="recompute_layers=0")

    def recomputes(self, module: RecomputeModule) -> bool:
        """Whether this part of each layer is computed again by itself."""
        return self.recompute is Recompute.selective and module in self.recompute_modules

    @property
    def model_parallel_size(self) -> int:
        """Ranks of one replica."""
        return self.tensor_parallel_size * self.context_parallel_size * self.pipeline_parallel_size

    @property
    def sequence_multiple(self) -> int:
        """Rows are cut into this many equal parts: two chunks a context-parallel rank, each rank's tokens again by sequence parallelism."""
        chunks = 2 * self.context_parallel_size if self.context_parallel_size > 1 else 1
        return math.lcm(chunks, self.context_parallel_size * (self.tensor_parallel_size if self.sequence_parallel else 1))

    @property
    def micro_batch_group(self) -> int:
        """Micro-batches of a replica divide by this: the interleaved schedule goes round in groups of one per stage."""
        return self.pipeline_parallel_size if self.virtual_pipeline_size > 1 else 1

    def data_parallel_size(self, world_size: int) -> int:
        return world_size // self.model_parallel_size
