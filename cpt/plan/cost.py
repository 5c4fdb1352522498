"""What the steps of a run cost with all that comes on top: saves, failures, what production adds; GPU-hours, money, energy."""

from __future__ import annotations

from dataclasses import dataclass

from cpt.config.run import RunConfig
from cpt.plan.memory import checkpoint_bytes
from cpt.plan.reliability import Reliability, expected

REASONS = ("steps", "saves", "failures", "spares", "production")
"""Why GPU-hours are spent, in the order in which they come on top of each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """Of one checkpoint: bytes, seconds until it is durable, seconds that training waits."""

    bytes: int
    seconds: float
    blocking: float

    @property
    def lag(self) -> float:
        """Between the end of the wait and a durable save."""
        return max(0.0, self.seconds - self.blocking)


def saving(config: RunConfig) -> Saving:
    """Each rank writes its share; the storage takes so much from a node and so much from all. An asynchronous save waits for the copy to host memory only."""
    rates, slurm, size = config.cluster.rates, config.slurm, checkpoint_bytes(config.model)
    seconds = size / min(rates.storage_bandwidth, slurm.nodes * rates.node_storage_bandwidth)
    copied = size / slurm.world_size / rates.copy_bandwidth
    return Saving(bytes=size, seconds=seconds + copied, blocking=copied if config.checkpoint.asynchronous else seconds + copied)


def reliability(config: RunConfig, step_seconds: float, pessimism: float = 1.0) -> Reliability | None:
    """The run as failures meet it; None where none are expected. The fast tier, where there is one, is what a failure falls back to.

    SLURM takes a lost node out of a job for good, so a spare is there again with the next job at the latest: after a time limit.
    """
    rates, slurm, saved = config.cluster.rates, config.slurm, saving(config)
    if not rates.failures_per_node_day:
        return None
    steps = config.checkpoint.fast_interval if config.checkpoint.fast_folder else config.checkpoint.interval
    return Reliability(
        nodes=slurm.nodes,
        gpus_per_node=slurm.tasks_per_node,
        failures_per_node_day=rates.failures_per_node_day * pessimism,
        interval_seconds=steps * step_seconds,
        blocking_seconds=saved.blocking,
        lag_seconds=saved.lag,
        restart_seconds=rates.restart_seconds,
        queue_seconds=rates.queue_seconds,
        spare_nodes=slurm.spare_nodes,
        repair_seconds=60 * slurm.minutes,
        work_seconds=config.train.steps * step_seconds,
    )


def gpu_hours(config: RunConfig, step_seconds: float) -> dict[str, float]:
    """By reason (`REASONS`), and their `total`.

    A production factor is what a long run's wall-clock came to over the plan of its steps, saves and failures: it multiplies all of them.
    """
    world, steps = config.slurm.world_size, config.train.steps
    saves = -(-steps // config.checkpoint.interval) * saving(config).blocking
    hours = {"steps": steps * step_seconds * world / 3600, "saves": saves * world / 3600, "failures": 0.0, "spares": 0.0}
    if run := reliability(config, step_seconds):
        lost = expected(run).lost
        hours |= {"saves": lost.saves, "failures": lost.redone + lost.restarts + lost.queue, "spares": lost.spares}
    hours["production"] = (config.cluster.rates.production - 1) * sum(hours.values())
    return hours | {"total": sum(hours.values())}
