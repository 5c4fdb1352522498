"""A failure drill: take a node (or, without SLURM, a rank) away from a running job and time the way back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.running import Scheduler
from cpt.core.attempts import AttemptBegin, DrillRecord, StopRecord
from cpt.core.errors import CptError
from cpt.core.paths import RunPaths
from cpt.tracking.journal import read_metrics
from slurm import process, standing
from slurm.devcluster import DevCluster

Say = Callable[[str], None]


def lose_power(config: RunConfig, run: RunPaths, say: Say) -> None:
    """Kill one node of the job two steps after its first checkpoint, and wait for the first step of the next attempt."""
    follow(run, say, lambda steps: max(steps, default=0) >= config.checkpoint.interval + 2)
    begin = AttemptBegin.load(run.attempts()[-1].begin)
    if config.cluster.scheduler is Scheduler.slurm:
        what = f"{begin.nodes[-1]} lost power"
        DevCluster(Path(config.cluster.slurm_conf).parent).kill(begin.nodes[-1])
    else:
        what = f"rank process {process.kill_one(['jobs.cli', 'train', '--run', str(run.root)])} was killed"
    record = DrillRecord(what=what, time=time.time(), attempt=begin.number, step=max(_steps(run, begin.number)))
    say(f"{what} at step {record.step}")
    follow(run, say, lambda steps: len(run.attempts()) > begin.number + 1 and bool(_steps(run, begin.number + 1)))
    seconds = time.time() - record.time
    DrillRecord(what=what, time=record.time, attempt=record.attempt, step=record.step, seconds_to_next_step=seconds).save(run.drill)
    say(f"training again: the next step was done {seconds:.0f} s after the loss")


def wait_until_done(run: RunPaths, say: Say) -> None:
    """Returns when training reached its last step. Raises `CptError` when nothing is left that could get there."""
    follow(run, say, lambda _: run.stopped.is_file() and StopRecord.load(run.stopped).reason == "done")


def follow(run: RunPaths, say: Say, reached: Callable[[Iterable[int]], bool]) -> None:
    """Poll until `reached` holds for the journaled steps; says where the run stands every half minute."""
    for turn in range(10**9):
        if reached(steps := _steps(run)):
            return
        if turn % 30 == 29:
            state = standing.of_run(run)
            say(f"step {max(steps, default=0)}  checkpoint {state.checkpoint}  {state.queue or 'no job in the queue'}")
            if state.state in standing.OVER and state.state is not standing.State.done:
                raise CptError(f"{run.root.name} is {state.state}: {state.why}; cpt why {run.root}")
        time.sleep(1)


def _steps(run: RunPaths, attempt: int | None = None) -> list[int]:
    return [row.step for row in read_metrics(run) if "train/loss" in row.values and attempt in (None, row.attempt)]
