"""Trials -> one submitit job array. Each trial is a run directory; a task runs the supervisor on it, which resumes from disk."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.running import Scheduler
from cpt.config.seal import read_config
from cpt.core.artifacts import Artifact, sha256_json
from cpt.core.paths import RunPaths, SweepPaths
from slurm import client, local, process, script, supervisor
from slurm.submit import JobRecord, is_done

WRITERS = 16
"""Threads that write files of trials: each file waits for its disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission(Artifact):
    """One array (`submitit/<number>/submission.json`), written before sbatch is called: its tasks are found again by `name`, whoever died."""

    name: str
    """Of the job."""
    trials: list[int]
    """Index of the trial that each task runs."""
    fingerprints: list[str]
    """Of those trials' configs."""
    job: str = ""
    """Id of the array; empty when its submitter did not live to know it."""


@dataclass(frozen=True)
class Trial:
    """What every task of an array runs, in the batch process of its allocation, where SLURM's signals arrive."""

    sweep: Path
    number: int
    """Of the submission."""
    rank_command: Sequence[str] = ()

    def __call__(self) -> str:
        """Ends the process with the supervisor's exit code when that is not 0, so that SLURM sees FAILED."""
        sweep, task = SweepPaths(self.sweep), int(os.environ["SLURM_ARRAY_TASK_ID"])
        run = sweep.trial(Submission.load(_record(sweep, self.number)).trials[task])
        _remember(run, f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}")
        step = script.rank_step(read_config(run.config), run, sys.executable, self.rank_command)
        if code := supervisor.main(["--run", str(run.root), "--", *step]):
            sys.exit(code)
        return "done"


def submit_trials(config: RunConfig, sweep: SweepPaths, trials: Mapping[int, str], rank_command: Sequence[str] = ()) -> str:
    """Submit these trials (index -> fingerprint) as one array, `slurm.array_parallelism` at a time; returns its job id, at once."""
    number = len(submissions(sweep))
    record = Submission(name=f"{job_name(sweep)}.{number:03d}", trials=list(trials), fingerprints=list(trials.values()))
    record.save(_record(sweep, number))
    if config.cluster.scheduler is Scheduler.local:
        job = _submit_local(config, sweep, [sweep.trial(index) for index in trials], rank_command)
    else:
        job = _submit_slurm(config, sweep, number, record, rank_command)
    dataclasses.replace(record, job=job).save(_record(sweep, number))
    return job


def submissions(sweep: SweepPaths) -> list[Submission]:
    """All arrays of this sweep, oldest first."""
    return [Submission.load(path) for path in sorted(sweep.submissions.glob("*/submission.json"))]


def job_name(sweep: SweepPaths) -> str:
    """What the names of a sweep's arrays begin with, wherever it lies."""
    return f"{sweep.root.name}.{sha256_json(str(sweep.root))[:6]}"


def _record(sweep: SweepPaths, number: int) -> Path:
    return sweep.submissions / f"{number:03d}" / "submission.json"


def _submit_slurm(config: RunConfig, sweep: SweepPaths, number: int, record: Submission, rank_command: Sequence[str]) -> str:
    from slurm.executor import ArrayExecutor, parameters

    with client.using(config.cluster):
        # `exec`: SLURM sends `--signal=B:` to the batch shell, which must be the supervisor.
        executor = ArrayExecutor(_record(sweep, number).parent, python=f"exec {shlex.quote(sys.executable)}")
        executor.update_parameters(**parameters(config, record.name, _options(config)))
        job = executor.submit_tasks(Trial(sweep.root, number, tuple(rank_command)), len(record.trials))
    runs = [(sweep.trial(index), f"{job}_{task}") for task, index in enumerate(record.trials)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(_remember, *zip(*runs, strict=True)))
    return job


def _remember(run: RunPaths, job: str) -> None:
    """By the submitter, and by the task itself in case that died."""
    if not run.job.is_file() or JobRecord.load(run.job).id != job:
        JobRecord(id=job, scheduler="slurm", time=time.time()).save(run.job)


def _submit_local(config: RunConfig, sweep: SweepPaths, runs: Sequence[RunPaths], rank_command: Sequence[str]) -> str:
    """As many supervisors as may run at once, each with its part of the trials, one after the other."""
    lanes = [list(runs[first :: config.slurm.array_parallelism]) for first in range(min(len(runs), config.slurm.array_parallelism))]
    pids = local.start(sweep.submissions, [local.Supervised([run.root for run in lane], rank_command) for lane in lanes])
    now = time.time()
    for pid, lane in zip(pids, lanes, strict=True):
        for run in lane:
            JobRecord(id=str(pid), scheduler="local", time=now, started=process.describe(pid).started).save(run.job)
    return str(pids[0])


def _options(config: RunConfig) -> dict[str, str]:
    """What `slurm.script` writes for a single run."""
    slurm = config.slurm
    return {
        "requeue" if slurm.requeue else "no-requeue": "",
        "chdir": str(Path.cwd()),
        **script.placement(config),
        "cpus-per-task": str(slurm.cpus_per_task),
        "time": slurm.time,
        "signal": f"B:USR2@{slurm.signal_lead}",
        **slurm.extra,
    }


def active(config: RunConfig, runs: Sequence[RunPaths]) -> dict[Path, str]:
    """Of a sweep's trials, those that wait or run now, with their state. Raises `CptError` when the scheduler does not answer."""
    return {root: job.state for root, job in queued(config, runs).items()}


def queued(config: RunConfig, runs: Sequence[RunPaths]) -> dict[Path, client.Job]:
    """Of a sweep's trials, those that wait or run now, with their job; found by the names of jobs, whether or not their submitter came to write ids."""
    if config.cluster.scheduler is Scheduler.local:
        return {run.root: job for run in runs if (job := _local_job(run))}
    found: dict[Path, client.Job] = {}
    waiting = [run for run in runs if not is_done(run)]
    for sweep in dict.fromkeys(SweepPaths(run.root.parents[1]) for run in waiting):
        for record in submissions(sweep):
            tasks = client.jobs(config.cluster, name=record.name)
            found |= {sweep.trial(record.trials[int(task.id.partition("_")[2])]).root: task for task in tasks}
    wanted = {run.root for run in waiting}
    return {root: job for root, job in found.items() if root in wanted} | dict(_alone(config, [run for run in waiting if run.root not in found]))


def _alone(config: RunConfig, runs: Sequence[RunPaths]) -> Iterator[tuple[Path, client.Job]]:
    """Trials whose own script is queued: by the supervisor, where users may not requeue, or by hand."""
    begun = [run for run in runs if run.state.is_file()]
    if begun and client.jobs(config.cluster, name=",".join(map(script.job_name, begun))):
        yield from ((run.root, job) for run in begun for job in client.jobs(config.cluster, name=script.job_name(run)))


def _local_job(run: RunPaths) -> client.Job | None:
    record = JobRecord.load(run.job) if run.job.is_file() else None
    if record is None or record.scheduler != Scheduler.local or is_done(run):
        return None
    lives = process.lives(process.ProcessRecord(pid=int(record.id), started=record.started))
    return client.Job(id=record.id, state="RUNNING", reason="None", nodes="this machine") if lives else None


def cancel(config: RunConfig, sweep: SweepPaths) -> None:
    """Take all arrays of this sweep out of the queue."""
    import submitit

    with client.using(config.cluster):
        for record in submissions(sweep):
            if record.job:
                submitit.SlurmJob(folder=sweep.submissions, job_id=record.job).cancel(check=False)
