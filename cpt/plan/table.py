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
    layout = record.layout
    context = f" x CP {layout['context']}" if layout["context"] > 1 else ""
    virtual = f" in {layout['virtual']} chunks" if layout["virtual"] > 1 else ""
    active = f", {units.count(config.model.active_parameters)} of them for each token" if config.model.moe else ""
    experts = f", {config.model.moe.num_experts} experts over EP {layout['expert']}" if config.model.moe else ""
    return [
        ("model", f"{config.model.name}, {units.count(record.parameters)} parameters{active}"),
        (
            "layout",
            f"TP {layout['tensor']}{context} x PP {layout['pipeline']}{virtual} x DP {layout['data']} = {layout['world']} ranks on {layout['nodes']} nodes{experts}",
        ),
        ("node counts that work", ", ".join(map(str, record.valid_nodes))),
        (
            "batch",
            f"{config.train.global_batch_size} x {config.train.sequence_length} = {record.tokens_per_step:,} tokens, {layout['micro_batches']} micro-batches a replica",
        ),
        ("steps", f"{record.steps:,} = {units.count(record.train_tokens)} tokens"),
        ("peak learning rate", f"{config.peak_lr:.3g} = {config.optimizer.lr_ratio:g} x the base's {config.model.base_peak_lr:.3g}"),
    ]


def _memory(config: RunConfig, record: PlanRecord) -> list[tuple[str, str]]:
    """The fullest rank by part, and where there are stages the total of each."""
    memory, room = record.memory, config.cluster.hardware.memory
    parts = " + ".join(f"{part} {units.size(memory[part])}" for part in PARTS if memory[part])
    found = [("fullest rank", f"{units.size(memory['total'])} of {units.size(room)} ({memory['total'] / room:.0%}): {parts}")]
    if len(record.stages) > 1:
        found.append(("by pipeline stage", ", ".join(units.size(stage["total"]) for stage in record.stages)))
    return found


def _cost(config: RunConfig, record: PlanRecord) -> list[tuple[str, str]]:
    rate = record.tokens_per_second
    whole = record.mfu * record.whole_flops_per_token / record.flops_per_token
    return [
        ("step", f"{record.step_seconds:.3g} s: {_parts(record)}"),
        (
            "speed",
            f"{units.count(rate)} tokens a second, {rate / record.layout['world']:,.0f} a rank; {record.mfu:.1%} MFU by causal attention"
            f" ({record.flops_per_token:.4g} FLOPs a token), {whole:.1%} by full attention ({record.whole_flops_per_token:.4g})",
        ),
        ("time", f"{units.duration(record.hours * 3600)} on the clock, {_hours(record.gpu_hours)} {_unit(config)}: {_reasons(config, record)}"),
        *_bill(config, record),
        (
            "checkpoints",
            f"{record.checkpoints:,} of {units.size(record.checkpoint_bytes)}, one each {units.duration(config.checkpoint.interval * record.step_seconds)}; "
            f"{units.duration(record.save_seconds)} to write, of which training waits {units.duration(record.blocking_seconds)}; {units.size(record.disk_bytes)} on disk",
        ),
        *_fast(config, record),
        *_failures(config, record),
    ]


def _parts(record: PlanRecord) -> str:
    """By share, largest first; below half a percent not worth a word."""
    named = sorted(((seconds / record.step_seconds, part) for part, seconds in record.step.items()), reverse=True)
    return ", ".join(f"{part} {share:.0%}" for share, part in named if share >= 0.005)


def _unit(config: RunConfig) -> str:
    return "GPU-hours" if config.cluster.gpus_per_node else "rank-hours"


def _reasons(config: RunConfig, record: PlanRecord) -> str:
    production = f" (x {config.cluster.rates.production:g}, cluster.rates.production)"
    named = ((reason, hours, production if reason == "production" else "") for reason, hours in record.cost.items())
    return ", ".join(f"{reason} {_hours(hours)}{why}" for reason, hours, why in named if hours >= 0.0005 * record.gpu_hours)


def _bill(config: RunConfig, record: PlanRecord) -> list[tuple[str, str]]:
    price = (
        f"{record.price:,.0f} {config.cluster.currency} at {config.cluster.gpu_hour_price:g} an hour" if record.price else "cluster.gpu_hour_price is not set"
    )
    return [("price", price), ("energy", f"{record.megawatt_hours:,.3g} MWh at {config.cluster.hardware.watts:g} W a rank, without cooling")]


def _failures(config: RunConfig, record: PlanRecord) -> list[tuple[str, str]]:
    if not record.mttf_hours:
        return []
    rate = 1000 * config.cluster.rates.failures_per_node_day
    return [
        (
            "failures",
            f"one each {units.duration(3600 * record.mttf_hours)} at {rate:.3g} per 1,000 node-days, {record.restarts:.1f} restarts; "
            f"{record.ettr:.1%} effective training time (cpt plan --reliability)",
        )
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
