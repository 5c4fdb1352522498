"""Trials -> one submitit job array. Each trial is a run directory; a task resumes it from disk, never from its pickle."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from cpt.config.run import RunConfig
from cpt.config.running import Scheduler
from cpt.config.seal import read_config
from cpt.core.artifacts import sha256_json
from cpt.core.attempts import AttemptBegin
from cpt.core.errors import EXIT_RESUME, CptError
from cpt.core.paths import RunPaths, SweepPaths
from slurm import client, local, process, recovery, script
from slurm.environment import ATTEMPT, master_port
from slurm.recovery import Action
from slurm.submit import JobRecord

_MEETING = 60.0
"""Seconds that other ranks wait for rank 0 to open the attempt."""


class Trial:
    """What one task of the array runs: the training command of a run directory, as a child. Raises, so that SLURM sees FAILED."""

    def __init__(self, run: Path, rank_command: Sequence[str] = ()) -> None:
        self.run = run
        self.rank_command = tuple(rank_command)
        self._child: subprocess.Popen[bytes] | None = None
        self._told = False

    def __call__(self) -> str:
        """Returns how it ended. Raises `CptError` when recovery says fail or hold."""
        import submitit

        job, run = submitit.JobEnvironment(), RunPaths(self.run)
        config = read_config(run.config)
        # Not submitit's own handlers: they would requeue from the pickle while the child is still saving.
        signal.signal(signal.SIGUSR2, self._stop)
        attempt = _open(run, config, job)
        if attempt < 0:
            return "was finished"
        code = self._rank(run, config, attempt, job)
        if job.global_rank == 0:
            return self._close(run, config, attempt, code, job.job_id)
        if code not in (0, EXIT_RESUME):
            raise CptError(f"rank {job.global_rank} ended with {code}")
        return f"rank {job.global_rank} ended with {code}"

    def _rank(self, run: RunPaths, config: RunConfig, attempt: int, job: Any) -> int:
        meeting = {"MASTER_ADDR": str(job.hostnames[0]), "MASTER_PORT": str(master_port(job.job_id, attempt))}
        fixed = {ATTEMPT: str(attempt), "PYTHONUNBUFFERED": "1"}
        command = script.rank_argv(run, rank_command=self.rank_command)
        with open(run.attempt(attempt).log(job.global_rank), "ab") as log:
            environment = os.environ | script.environment(config) | meeting | fixed
            self._child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            if self._told:
                self._child.send_signal(signal.SIGUSR2)
            while (code := self._child.poll()) is None:  # `wait` holds a lock that the handler needs
                time.sleep(0.1)
        return code

    def _close(self, run: RunPaths, config: RunConfig, attempt: int, code: int, job_id: str) -> str:
        evidence = recovery.gather(run, attempt, code, self._told)
        lost = client.lost_nodes(config.cluster, AttemptBegin.load(run.attempt(attempt).begin).nodes)
        verdict = recovery.end(run, dataclasses.replace(evidence, lost_nodes=lost), config.slurm)
        if verdict.action is Action.requeue:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            client.requeue(config.cluster, job_id)
            time.sleep(60)  # which the requeue ends
        if verdict.action is not Action.done:
            raise CptError(f"{verdict.action}: {verdict.message}")
        return verdict.message

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True
        if self._child and self._child.poll() is None:
            self._child.send_signal(signal.SIGUSR2)


def _open(run: RunPaths, config: RunConfig, job: Any) -> int:
    """Rank 0 opens the attempt, the others wait until it has. -1 when the trial is finished. Raises `CptError` when it is held."""
    job_id, restarts = str(job.job_id), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if job.global_rank == 0:
        down = partial(client.lost_nodes, config.cluster)
        nothing, attempt = recovery.begin(run, job=job_id, restarts=restarts, nodes=list(job.hostnames), limits=config.slurm, down=down)
        if nothing and nothing.action is not Action.done:
            raise CptError(nothing.message)
        return attempt
    deadline = time.monotonic() + _MEETING
    while time.monotonic() < deadline:
        attempts = run.attempts()
        if attempts and attempts[-1].begin.is_file():
            opened = AttemptBegin.load(attempts[-1].begin)
            if (opened.job, opened.restarts) == (job_id, restarts):
                return opened.number
        time.sleep(0.1)
    raise CptError(f"rank 0 did not open an attempt within {_MEETING:.0f} s")


def submit_trials(config: RunConfig, sweep: SweepPaths, runs: Sequence[RunPaths], rank_command: Sequence[str] = ()) -> str:
    """Submit these trials as one array that runs `slurm.array_parallelism` at a time; returns its job id, at once."""
    if config.cluster.scheduler is Scheduler.local:
        return _submit_local(config, sweep, runs, rank_command)
    import submitit

    with client.using(config.cluster):
        executor = submitit.SlurmExecutor(folder=sweep.submissions)
        executor.update_parameters(**_parameters(config, sweep))
        jobs = executor.map_array(Trial.__call__, [Trial(run.root, rank_command) for run in runs])
    now = time.time()
    for run, job in zip(runs, jobs, strict=True):
        JobRecord(id=job.job_id, scheduler="slurm", time=now).save(run.job)
    return str(jobs[0].job_id).partition("_")[0]


def _submit_local(config: RunConfig, sweep: SweepPaths, runs: Sequence[RunPaths], rank_command: Sequence[str]) -> str:
    """As many supervisors as may run at once, each with its part of the trials, one after the other."""
    lanes = [list(runs[first :: config.slurm.array_parallelism]) for first in range(min(len(runs), config.slurm.array_parallelism))]
    pids = local.start(sweep.submissions, [local.Supervisor([run.root for run in lane], rank_command) for lane in lanes])
    now = time.time()
    for pid, lane in zip(pids, lanes, strict=True):
        for run in lane:
            JobRecord(id=str(pid), scheduler="local", time=now, started=process.describe(pid).started).save(run.job)
    return str(pids[0])


def _parameters(config: RunConfig, sweep: SweepPaths) -> dict[str, Any]:
    """submitit's words for what `slurm.script` writes for a single run."""
    cluster, slurm = config.cluster, config.slurm
    optional = {"partition": cluster.partition, "account": cluster.account, "exclude": ",".join(slurm.exclude), "gpus_per_node": cluster.gpus_per_node}
    return {name: value for name, value in optional.items() if value} | {
        "job_name": f"{sweep.root.name}.{sha256_json(str(sweep.root))[:6]}",
        "time": max(1, round(slurm.minutes)),
        "nodes": slurm.nodes,
        "ntasks_per_node": slurm.tasks_per_node,
        "cpus_per_task": slurm.cpus_per_task,
        "signal_delay_s": slurm.signal_lead,
        "array_parallelism": slurm.array_parallelism,
        "stderr_to_stdout": True,
        "setup": list(script.setup(config)),
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={slurm.cpus_per_task}"],
        "additional_parameters": {"requeue": True, "chdir": str(Path.cwd())} | slurm.extra,
    }


def active(config: RunConfig, runs: Iterable[RunPaths]) -> dict[Path, str]:
    """Of the trials, those that wait or run now, with their state."""
    records = {run.root: JobRecord.load(run.job) for run in runs if run.job.is_file()}
    records = {root: record for root, record in records.items() if record.scheduler == config.cluster.scheduler}
    if config.cluster.scheduler is Scheduler.local:
        live = (root for root, record in records.items() if process.lives(process.ProcessRecord(pid=int(record.id), started=record.started)))
        return dict.fromkeys(live, "RUNNING")
    arrays = {record.id.partition("_")[0] for record in records.values()}
    known = {job.id: job.state for array in sorted(arrays) for job in client.jobs(config.cluster, job_id=array)}
    return {root: known[record.id] for root, record in records.items() if record.id in known}
