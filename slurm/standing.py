"""Where a run or a sweep stands, from its files and the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.running import Scheduler
from cpt.config.seal import read_config
from cpt.core.artifacts import read_json
from cpt.core.attempts import Action, AttemptBegin, AttemptEnd, StopRecord, Suspects
from cpt.core.errors import CptError
from cpt.core.heartbeat import Beat, Phase, read_beats
from cpt.core.paths import RunPaths, SweepPaths
from cpt.core.records import SweepRecord
from cpt.core.units import epoch
from slurm import arrays, attempts, client, submit, watch
from slurm.client import Job
from slurm.script import job_name
from slurm.submit import JobRecord

_HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT")
_WAITING = ("PENDING", "COMPLETING", "REQUEUED", *_HELD)
"""States of a job that has no nodes for this run, now. One that is CONFIGURING has them: they boot."""


class State(StrEnum):
    """What a run is doing now."""

    new = "new"  # written, never submitted
    queued = "queued"
    running = "running"
    done = "done"
    stopped = "stopped"  # on request
    held = "held"  # a human must look
    failed = "failed"
    gone = "gone"  # neither done nor in the queue: cancelled, or its job died
    unknown = "unknown"  # the scheduler does not answer and nobody beats


OVER = (State.done, State.stopped, State.held, State.failed, State.gone)
"""Nothing comes after these by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStanding:
    """Files and queue, at one moment."""

    config: RunConfig
    state: State
    why: str
    """One sentence: SLURM's reason, or what ended the last attempt."""
    jobs: Sequence[Job]
    job: str
    """Id of the last job; empty when there was none."""
    submitted: float
    """Seconds since the epoch."""
    attempts: Sequence[tuple[AttemptBegin, AttemptEnd | None]]
    """The end is None for an attempt that runs, or died without a word."""
    checkpoint: int
    """The newest full one; 0 for none."""
    fast_checkpoint: int
    """The newest on the nodes' own disks; 0 for none."""
    beats: Sequence[Beat]
    """Of the last attempt."""
    suspects: Suspects
    without_progress: int
    """Attempts since the last one that left a newer checkpoint."""
    limits: Mapping[Phase, float]
    """Seconds without progress that are taken for a hang."""

    @property
    def queue(self) -> str:
        """The scheduler's word; empty when it has none."""
        return ", ".join(f"job {job.id} {job}" for job in self.jobs)

    @property
    def last_sign(self) -> float:
        """When anything of the run was last heard, seconds since the epoch."""
        ends = [end.time for _, end in self.attempts if end]
        return max([self.submitted, *ends, *(begin.time for begin, _ in self.attempts), *(beat.time for beat in self.beats)])


@dataclass
class Queue:
    """Asks the scheduler; of a controller that did not answer once it says so at once."""

    silent: dict[str, str] = field(default_factory=dict)

    def jobs(self, config: RunConfig, run: RunPaths) -> list[Job]:
        """The run's jobs that wait or run, whoever submitted them. Raises `CptError` when the scheduler does not answer."""
        conf = config.cluster.slurm_conf
        if conf in self.silent:
            raise CptError(self.silent[conf])
        try:
            return _jobs(config, run)
        except CptError as error:
            self.silent[conf] = str(error)
            raise


def of_run(run: RunPaths, queue: Queue | None = None, clock: Callable[[], float] = time.time) -> RunStanding:
    """Raises `MissingInput` when this is no run directory."""
    config = read_config(run.config)
    known = [(AttemptBegin.load(paths.begin), _end(paths.end)) for paths in run.attempts() if paths.begin.is_file()]
    beats = read_beats(run.attempt(known[-1][0].number)) if known else []
    alive = _fresh(beats, config, clock()) and known[-1][1] is None
    memory = attempts.load_state(run)
    record = _job_record(run)
    try:
        jobs = (queue or Queue()).jobs(config, run)
        state, why = _state(run, jobs, known[-1][1] if known else None, alive)
    except CptError as error:
        jobs = []
        state, why = _state(run, [], None, alive) if alive or submit.is_done(run) else (State.unknown, str(error))
    return RunStanding(
        config=config,
        state=state,
        why=why,
        jobs=jobs,
        job=jobs[0].id if jobs else record.id if record else known[-1][0].job if known else "",
        submitted=_submitted(run, record, known[0][0].time if known else None),
        attempts=known,
        checkpoint=attempts.last_full_step(run),
        fast_checkpoint=attempts.last_fast_step(run),
        beats=beats,
        suspects=attempts.load_suspects(run),
        without_progress=sum(memory.streak.values()),
        limits=watch.limits(config.slurm, memory.longest),
    )


def of_sweep(sweep: SweepPaths) -> list[tuple[int, list[str], str, RunPaths]]:
    """(index, overrides, state, directory) of each trial. state: done | failed | ended | SLURM's word for one in the queue."""
    trials = SweepRecord.load(sweep.sweep).trials
    runs = [sweep.trial(index) for index in range(len(trials))]
    try:
        queued = arrays.active(read_config(runs[0].config), runs)
    except CptError as error:
        queued = {run.root: f"unknown ({error})" for run in runs}
    return [(index, overrides, _trial_state(run, queued.get(run.root, "")), run) for index, (overrides, run) in enumerate(zip(trials, runs, strict=True))]


def _state(run: RunPaths, jobs: Sequence[Job], last: AttemptEnd | None, alive: bool) -> tuple[State, str]:
    if submit.is_done(run):
        return State.done, last.message if last else f"finished at step {StopRecord.load(run.stopped).step}"
    active = [job for job in jobs if job.state not in _WAITING]
    if active:
        return State.running, str(active[0])
    if held := next((job for job in jobs if job.state in _HELD or "held" in job.reason.lower()), None):
        return State.held, f"SLURM holds job {held.id} ({held.reason})"
    if waiting := [job for job in jobs if job.state == "PENDING"] or (jobs if last is None or last.action not in (Action.fail, Action.hold) else []):
        return State.queued, f"{waiting[0].state} ({waiting[0].reason})"
    if alive:
        return State.running, "no job of it in the queue, but its ranks beat"
    return _over(run, last)


def _over(run: RunPaths, last: AttemptEnd | None) -> tuple[State, str]:
    """No job, and no rank beats."""
    if last:
        state = {Action.done: State.stopped, Action.fail: State.failed, Action.hold: State.held}.get(last.action, State.gone)
        return state, last.message if state is not State.gone else f"not in the queue, though {last.action} was to follow: {last.message}"
    if run.attempts():
        return State.gone, f"not in the queue, and attempt {run.attempts()[-1].number} never said how it ended: cancelled, or killed"
    if run.job.is_file():
        return State.gone, f"job {JobRecord.load(run.job).id} left the queue before it began"
    return State.new, "never submitted"


def _fresh(beats: Sequence[Beat], config: RunConfig, now: float) -> bool:
    """Whether any rank has beaten lately and did not say that it is done."""
    return any(beat.phase is not Phase.done and now - beat.time < config.slurm.silence_seconds for beat in beats)


def _jobs(config: RunConfig, run: RunPaths) -> list[Job]:
    is_trial = SweepPaths(run.root.parent.parent).sweep.is_file()  # a task of an array, which has another name
    if is_trial or config.cluster.scheduler is Scheduler.local:
        return list(arrays.queued(config, [run]).values())
    return client.jobs(config.cluster, name=job_name(run))


def _job_record(run: RunPaths) -> JobRecord | None:
    return JobRecord.load(run.job) if run.job.is_file() else None


def _end(path: Path) -> AttemptEnd | None:
    return AttemptEnd.load(path) if path.is_file() else None


def _submitted(run: RunPaths, record: JobRecord | None, first_begin: float | None) -> float:
    """Of the first job. Only the last submission is on record, so after a second one the directory's own age stands for the first."""
    if record and (first_begin is None or record.time <= first_begin):
        return record.time
    created = 0.0
    with suppress(CptError, KeyError):
        created = epoch(read_json(run.run)["created"])
    created = created or run.config.stat().st_mtime
    return created if first_begin is None else min(first_begin, created)


def _trial_state(run: RunPaths, queued: str) -> str:
    if submit.is_done(run):
        return "done"
    if queued:
        return queued
    known = run.attempts()
    if known and known[-1].end.is_file():
        return "failed" if AttemptEnd.load(known[-1].end).action in (Action.fail, Action.hold) else "ended"
    return "ended" if known else "not in the queue"
