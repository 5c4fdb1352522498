"""Seconds of one optimizer step, by part: `roofline` for arithmetic, `traffic` for collectives, and what runs beside what."""

from __future__ import annotations

from dataclasses import dataclass

from cpt.config.parallel import Recompute
from cpt.plan import roofline, traffic
from cpt.plan.memory import stage_layers, stage_parameters
from cpt.plan.roofline import Work
from cpt.plan.workload import Workload

PARTS = ("products", "attention", "memory", "recompute", "logits", "tensor", "context", "experts", "pipeline", "data", "bubble", "optimizer")

_FIRST_BUCKET = 0.05
"""Of the data-parallel traffic what nothing runs beside, however much there is to do: its first and last bucket."""

_BESIDE = 0.9
"""Share of a backward pass (or a forward one, for weights) that buckets can run beside."""


_UNHIDDEN = 0.15
"""Of a transfer between stages that runs beside work what still delays it: it must be started, and waited for at its end."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Seconds of one layer and micro-batch on one rank, both passes."""

    work: Work
    again: Work
    tensor: float
    context: float
    experts: float
    sharded: float
    """What gathering fully sharded weights takes beyond all else."""

    @property
    def seconds(self) -> float:
        """In all."""
        return self.work.seconds + self.again.seconds + self.tensor + self.context + self.experts + self.sharded


def step_seconds(work: Workload) -> dict[str, float]:
    """Seconds by part (`PARTS`), and their `total`: of the slowest stage, and of the bubble before and behind it."""
    parallel = work.parallel
    stages, chunks, micro_batches = parallel.pipeline_parallel_size, parallel.virtual_pipeline_size, work.micro_batches
    last = stages - 1
    plain, routed = stage_layers(work.model, parallel, last)
    kinds = [(count, layer(work, with_experts)) for with_experts, count in ((False, plain), (True, routed)) if count]
    inside = sum(count * kind.seconds for count, kind in kinds)
    parts = {
        "products": sum(count * kind.work.products for count, kind in kinds),
        "attention": sum(count * kind.work.attention for count, kind in kinds),
        "memory": sum(count * kind.work.memory for count, kind in kinds),
        "recompute": sum(count * kind.again.seconds for count, kind in kinds),
        "logits": max(0.0, roofline.logits(work).seconds - (kinds[-1][1].seconds if work.program.counts_ends else 0.0)),
        "tensor": sum(count * kind.tensor for count, kind in kinds),
        "context": sum(count * kind.context for count, kind in kinds),
        "experts": sum(count * kind.experts for count, kind in kinds),
        "pipeline": _passing(work),
    }
    parts = {name: micro_batches * seconds for name, seconds in parts.items()}
    parts["data"] = data_seconds(work, inside) + micro_batches * sum(count * kind.sharded for count, kind in kinds)
    parts["bubble"] = (stages - 1) / chunks * (inside + 2 * traffic.pipeline(work) * chunks)
    parts["optimizer"] = roofline.optimizer(work, max(stage_parameters(work.model, parallel, stage) for stage in {0, last}))
    return parts | {"total": sum(parts.values())}


def layer(work: Workload, routed: bool) -> Layer:
    """Of one kind of layer."""
    both, again = roofline.forward(work, routed) + roofline.backward(work, routed), roofline.again(work, routed)
    full = work.parallel.recompute is Recompute.full
    tensor = traffic.tensor(work) + (traffic.tensor_again(work) if full else 0.0)
    context, experts = traffic.context(work), traffic.experts(work) if routed else 0.0
    busy = both.seconds + again.seconds + tensor + context + experts
    sharded = max(0.0, _gathering(work, routed) - busy) if work.program.fully_sharded else 0.0
    return Layer(both, again, tensor, context, experts, sharded)


def _gathering(work: Workload, routed: bool) -> float:
    model = work.model
    own = model.moe.num_experts * model.moe.expert_parameters(model.hidden_size) if routed else 3 * model.hidden_size * model.ffn_hidden_size
    return traffic.gathered_layer(work, (model.attention_parameters[0] + own) / work.parallel.tensor_parallel_size)


def _passing(work: Workload) -> float:
    """Of one micro-batch between stages, forward and backward: the plain schedule waits, the interleaved one sends beside its work, once a chunk."""
    chunks = work.parallel.virtual_pipeline_size
    return 2 * traffic.pipeline(work) if chunks == 1 else 2 * chunks * _UNHIDDEN * traffic.pipeline(work)


def data_seconds(work: Workload, pass_seconds: float) -> float:
    """What data parallelism adds to a step; `pass_seconds` are those of a stage's layers for one micro-batch, a third of it forward."""
    if work.program.fully_sharded:
        return 0.0
    parallel = work.parallel
    reduced, gathered = traffic.data(work, max(stage_parameters(work.model, parallel, stage) for stage in {0, parallel.pipeline_parallel_size - 1}))
    beside = ((reduced, parallel.overlap_grad_reduce, 2 / 3), (gathered, parallel.overlap_param_gather, 1 / 3))
    return sum(max(_FIRST_BUCKET * cost, cost - _BESIDE * share * pass_seconds) if hidden else cost for cost, hidden, share in beside)
