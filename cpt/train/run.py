"""One rank's attempt at a run: join the world, build, train, leave."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from cpt import engine
from cpt.config.run import RunConfig
from cpt.core.errors import EXIT_DONE, EXIT_HOLD, EXIT_RESUME
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.train.job import At, build_job
from cpt.train.journaling import Say
from cpt.train.loop import train
from cpt.train.stop import StopReason, StopWatch


@dataclass(frozen=True)
class Life:
    """What whoever started this rank wants to know of it, and when it must have stopped (seconds since the epoch)."""

    at: At = lambda _phase, _step: None
    deadline: float | None = None


def train_run(run: RunPaths, config: RunConfig, world: World, attempt: int, life: Life | None = None, say: Say = print) -> int:
    """Exit code of this rank: 0 done, 75 resume me, 80 hold for a human. Every rank of the world calls it.

    Raises `UserError` for what no other attempt can cure (data, base, gate), anything else when a rank is lost.
    """
    life = life or Life()
    watch = StopWatch(run.triggers, life.deadline)
    engine.initialize(world, config.parallel, config.seed)
    job = build_job(run, config, world, attempt, say)
    with closing(job.feed):
        reason = train(job, watch, life.at)
    if job.fast:
        job.fast.close()
        job.recorder.fast_step(None)
    job.recorder.stopped(reason.name, job.state)
    engine.finalize()
    return {StopReason.done: EXIT_DONE, StopReason.anomaly: EXIT_HOLD}.get(reason, EXIT_RESUME)
