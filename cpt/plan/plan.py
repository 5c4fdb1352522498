"""`plan`: a valid config and its mixture -> `PlanRecord`, or a refusal with what would work."""

from __future__ import annotations

from cpt.config.run import RunConfig
from cpt.core import units
from cpt.core.errors import Problem, UserError
from cpt.core.records import MixturePlan, PlanRecord
from cpt.plan.flops import flops_per_token
from cpt.plan.memory import PARTS, checkpoint_bytes, fullest_rank
from cpt.plan.shapes import that_fit, valid_nodes


def plan(config: RunConfig, mixture: MixturePlan) -> PlanRecord:
    """Layout, steps, memory, time and cost of a sealed config.

    Time is model FLOPs over `cluster.peak_flops * cluster.assumed_mfu`, an estimate; everything else is counted. Raises
    `UserError` when the fullest rank needs more than `cluster.device_memory`.
    """
    memory = fullest_rank(config)
    if memory["total"] > config.cluster.device_memory:
        raise UserError(_too_full(config, memory))
    train, parallel, world = config.train, config.parallel, config.slurm.world_size
    flops = flops_per_token(config.model, train.sequence_length)
    step_seconds = train.tokens_per_step * flops / (world * config.cluster.peak_flops * config.cluster.assumed_mfu)
    hours = train.steps * step_seconds / 3600
    checkpoints = -(-train.steps // config.checkpoint.interval)
    return PlanRecord(
        layout={
            "tensor": parallel.tensor_parallel_size,
            "pipeline": parallel.pipeline_parallel_size,
            "data": parallel.data_parallel_size(world),
            "world": world,
            "nodes": config.slurm.nodes,
        },
        steps=train.steps,
        train_tokens=train.steps * train.tokens_per_step,
        tokens_per_step=train.tokens_per_step,
        parameters=config.model.parameters,
        memory=memory,
        flops_per_token=flops,
        step_seconds=step_seconds,
        hours=hours,
        gpu_hours=hours * world,
        checkpoints=checkpoints,
        checkpoint_bytes=checkpoint_bytes(config),
        disk_bytes=min(checkpoints, _kept(config)) * checkpoint_bytes(config),
        mixture=mixture,
        valid_nodes=valid_nodes(config),
    )


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
        where="cluster.device_memory",
        what=f"is {units.size(config.cluster.device_memory)}, the fullest rank needs {units.size(memory['total'])}",
        why=f"it holds {parts}",
        fix=", or ".join(options) or "train.micro_batch_size=1, a shorter train.sequence_length, or a larger cluster",
    )
