"""A plan as lines for people."""

from __future__ import annotations

from cpt.config.run import RunConfig
from cpt.core import units
from cpt.core.records import PlanRecord, SourceShare
from cpt.plan.memory import PARTS


def rows(config: RunConfig, record: PlanRecord) -> list[tuple[str, str]]:
    """(what, value) in the order in which a reader asks."""
    return [*_shape(config, record), *_memory(config, record), *_cost(config, record), *_mixture(record)]


def _shape(config: RunConfig, record: PlanRecord) -> list[tuple[str, str]]:
    layout, parallel = record.layout, config.parallel
    context = f" x CP {parallel.context_parallel_size}" if parallel.context_parallel_size > 1 else ""
    virtual = f" in {parallel.virtual_pipeline_size} chunks" if parallel.virtual_pipeline_size > 1 else ""
    micro_batches = config.train.global_batch_size // (config.train.micro_batch_size * layout["data"])
    active = f", {units.count(config.model.active_parameters)} of them for each token" if config.model.moe else ""
    experts = f", {config.model.moe.num_experts} experts over EP {config.parallel.expert_parallel_size}" if config.model.moe else ""
    return [
        ("model", f"{config.model.name}, {units.count(record.parameters)} parameters{active}"),
        (
            "layout",
            f"TP {layout['tensor']}{context} x PP {layout['pipeline']}{virtual} x DP {layout['data']} = {layout['world']} ranks on {layout['nodes']} nodes{experts}",
        ),
        ("node counts that work", ", ".join(map(str, record.valid_nodes))),
        (
            "batch",
            f"{config.train.global_batch_size} x {config.train.sequence_length} = {record.tokens_per_step:,} tokens, {micro_batches} micro-batches a replica",
        ),
        ("steps", f"{record.steps:,} = {units.count(record.train_tokens)} tokens"),
        ("peak learning rate", f"{config.peak_lr:.3g} = {config.optimizer.lr_ratio:g} x the base's {config.model.base_peak_lr:.3g}"),
    ]


def _memory(config: RunConfig, record: PlanRecord) -> list[tuple[str, str]]:
    share = record.memory["total"] / config.cluster.device_memory
    parts = " + ".join(f"{part} {units.size(record.memory[part])}" for part in PARTS)
    return [("fullest rank", f"{units.size(record.memory['total'])} of {units.size(config.cluster.device_memory)} ({share:.0%}): {parts}")]


def _cost(config: RunConfig, record: PlanRecord) -> list[tuple[str, str]]:
    unit = "GPU-hours" if config.cluster.gpus_per_node else "rank-hours"
    return [
        ("compute", f"{record.flops_per_token:.4g} FLOPs a token (causal), {config.cluster.assumed_mfu:.0%} MFU assumed"),
        ("time", f"{units.duration(record.step_seconds)} a step, {units.duration(record.hours * 3600)} in all, {_hours(record.gpu_hours)} {unit}"),
        (
            "checkpoints",
            f"{record.checkpoints:,} of {units.size(record.checkpoint_bytes)}, one each {units.duration(config.checkpoint.interval * record.step_seconds)}; "
            f"{units.size(record.disk_bytes)} on disk",
        ),
        *_fast(config, record),
    ]


def _fast(config: RunConfig, record: PlanRecord) -> list[tuple[str, str]]:
    """A node holds its own share and its neighbor's, of the last two and of one that is being written."""
    keep, nodes = config.checkpoint, config.slurm.nodes
    if not keep.fast_folder:
        return []
    copies = 2 if nodes > 1 else 1
    room = units.size(record.checkpoint_bytes * copies * 3 / nodes)
    kept = "" if nodes > 1 else "; one node has no neighbor to hold a copy"
    return [("fast checkpoints", f"one each {units.duration(keep.fast_interval * record.step_seconds)}, {room} on each node's {keep.fast_folder}{kept}")]


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _mixture(record: PlanRecord) -> list[tuple[str, str]]:
    if not record.mixture.shares:
        return [("mixture", "corpus not prepared (cpt prepare); launch will ask for it")]
    return [(f"source {share.name}", _share(share)) for share in record.mixture.shares]


def _share(share: SourceShare) -> str:
    return (
        f"{share.group}, {share.language}: {share.weight:.1%} = {units.count(share.planned_tokens)} of {units.count(share.available_tokens)} tokens"
        f" ({share.epochs:.3g} of at most {share.epoch_cap:g} epochs)"
    )
