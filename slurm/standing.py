"""Where a run or a sweep stands, from its files and the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.attempts import AttemptBegin, AttemptEnd, StopRecord
from cpt.core.errors import CptError
from cpt.core.paths import AttemptPaths, RunPaths, SweepPaths
from cpt.core.records import SweepRecord
from slurm import arrays, recovery, submit


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStanding:
    """`end` is None for an attempt that runs, or died without a word; `queue` is the scheduler's word, empty when it has none."""

    attempts: Sequence[tuple[AttemptBegin, AttemptEnd | None]]
    checkpoint: int
    queue: str
    outcome: str


def of_run(run: RunPaths) -> RunStanding:
    """Raises `MissingInput` when this is no run directory."""
    config = read_config(run.config)
    stop = StopRecord.load(run.stopped) if run.stopped.is_file() else None
    return RunStanding(
        attempts=[_attempt(paths) for paths in run.attempts() if paths.begin.is_file()],
        checkpoint=recovery.last_step(run),
        queue=_queue(config, run),
        outcome=f"{stop.reason} at step {stop.step}" if stop else "",
    )


def of_sweep(sweep: SweepPaths) -> list[tuple[int, list[str], str, RunPaths]]:
    """(index, overrides, state, directory) of each trial. state: done | failed | ended | SLURM's word for one in the queue."""
    trials = SweepRecord.load(sweep.sweep).trials
    runs = [sweep.trial(index) for index in range(len(trials))]
    try:
        queued = arrays.active(read_config(runs[0].config), runs)
    except CptError as error:
        queued = {run.root: f"unknown ({error})" for run in runs}
    return [(index, overrides, _state(run, queued.get(run.root, "")), run) for index, (overrides, run) in enumerate(zip(trials, runs, strict=True))]


def _attempt(paths: AttemptPaths) -> tuple[AttemptBegin, AttemptEnd | None]:
    return AttemptBegin.load(paths.begin), AttemptEnd.load(paths.end) if paths.end.is_file() else None


def _queue(config: RunConfig, run: RunPaths) -> str:
    try:
        return submit.queued(config, run)
    except CptError as error:
        return f"unknown ({error})"


def _state(run: RunPaths, queued: str) -> str:
    if submit.is_done(run):
        return "done"
    if queued:
        return queued
    attempts = run.attempts()
    if attempts and attempts[-1].end.is_file():
        end = AttemptEnd.load(attempts[-1].end)
        return "failed" if end.action in (recovery.Action.fail, recovery.Action.hold) else "ended"
    return "ended" if attempts else "not in the queue"
