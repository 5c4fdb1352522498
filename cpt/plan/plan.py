"""`plan`: a valid config and its mixture -> `PlanRecord`, or a refusal with what would work."""

from __future__ import annotations

from cpt.config.run import RunConfig
from cpt.core import units
from cpt.core.errors import Problem, UserError
from cpt.core.records import MixturePlan, PlanRecord
from cpt.plan.cost import gpu_hours, reliability, saving
from cpt.plan.flops import flops_per_token
from cpt.plan.memory import PARTS, fullest_rank, stage_memory
from cpt.plan.reliability import expected
from cpt.plan.shapes import that_fit, valid_nodes
from cpt.plan.step import step_seconds
from cpt.plan.workload import Workload, workload


def plan(config: RunConfig, mixture: MixturePlan) -> PlanRecord:
    """Layout, memory, steps, time and cost of a sealed config.

    Memory is counted; the time of a step is predicted from `cluster.hardware` and the efficiencies of `cluster.rates`, failures from its rate. Raises
    `UserError` when the fullest rank needs more than `cluster.hardware.memory`.
    """
    work = workload(config)
    _require_room(config, fullest_rank(work))
    train, step = config.train, step_seconds(work)
    seconds = step.pop("total")
    cost = gpu_hours(config, seconds)
    total = cost.pop("total")
    flops, whole = (flops_per_token(config.model, train.sequence_length, whole) for whole in (False, True))
    saved, checkpoints, failing = saving(config), -(-train.steps // config.checkpoint.interval), _failing(config, seconds)
    return PlanRecord(
        layout=_layout(config, work),
        steps=train.steps,
        train_tokens=train.steps * train.tokens_per_step,
        tokens_per_step=train.tokens_per_step,
        parameters=config.model.parameters,
        stages=[stage_memory(work, stage) for stage in range(config.parallel.pipeline_parallel_size)],
        flops_per_token=flops,
        whole_flops_per_token=whole,
        step=step,
        step_seconds=seconds,
        mfu=train.tokens_per_step * flops / (seconds * work.world_size * config.cluster.hardware.peak_flops),
        tokens_per_second=train.tokens_per_step / seconds,
        cost=cost,
        hours=(total - cost["spares"] * config.cluster.rates.production) / work.world_size,
        gpu_hours=total,
        price=total * config.cluster.gpu_hour_price,
        megawatt_hours=total * config.cluster.hardware.watts / 1e6,
        checkpoints=checkpoints,
        checkpoint_bytes=saved.bytes,
        save_seconds=saved.seconds,
        blocking_seconds=saved.blocking,
        disk_bytes=min(checkpoints, _kept(config)) * saved.bytes,
        mixture=mixture,
        valid_nodes=valid_nodes(config),
        **failing,
    )


def _require_room(config: RunConfig, memory: dict[str, int]) -> None:
    if memory["total"] > config.cluster.hardware.memory:
        raise UserError(_too_full(config, memory))


def _failing(config: RunConfig, seconds: float) -> dict[str, float]:
    """Where no failures are expected, saves alone keep training from its steps."""
    if run := reliability(config, seconds):
        met = expected(run)
        return {"mttf_hours": run.mttf / 3600, "restarts": met.failures, "ettr": met.ettr}
    interval = config.checkpoint.interval * seconds
    return {"mttf_hours": 0.0, "restarts": 0.0, "ettr": interval / (interval + saving(config).blocking)}


def _layout(config: RunConfig, work: Workload) -> dict[str, int]:
    parallel = config.parallel
    return {
        "tensor": parallel.tensor_parallel_size,
        "context": parallel.context_parallel_size,
        "pipeline": parallel.pipeline_parallel_size,
        "virtual": parallel.virtual_pipeline_size,
        "expert": parallel.expert_parallel_size,
        "data": work.replicas,
        "world": work.world_size,
        "nodes": config.slurm.nodes,
        "micro_batches": work.micro_batches,
    }


def _kept(config: RunConfig) -> int:
    """Checkpoints on disk at the end, and one that is written before the oldest goes."""
    keep = config.checkpoint
    return keep.keep_last + keep.keep_best + (config.train.steps // keep.keep_every if keep.keep_every else 0) + 1


def unprepared(config: RunConfig) -> MixturePlan:
    """Stands for the mixture of a corpus that is not prepared yet: no shares. Good for a plan, not for a launch."""
    return MixturePlan(train_tokens=config.train.train_tokens, shares=[], data_hash="")


def _too_full(config: RunConfig, memory: dict[str, int]) -> Problem:
    parts = ", ".join(f"{part} {units.size(memory[part])}" for part in PARTS)
    options = [" ".join(overrides) for overrides in that_fit(config)]
    return Problem(
        where="cluster.hardware.memory",
        what=f"is {units.size(config.cluster.hardware.memory)}, the fullest rank needs {units.size(memory['total'])}",
        why=f"it holds {parts}",
        fix=", or ".join(options) or "train.micro_batch_size=1, a shorter train.sequence_length, or a larger cluster",
    )
