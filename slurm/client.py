"""sbatch, squeue, scontrol, sinfo: the only place where SLURM's commands are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cpt.config.running import ClusterConfig
from cpt.core.errors import CptError, Problem, UserError
from cpt.topology import Fabric, from_scontrol

SLURMD_PORT = 6818
"""Where slurmd listens unless the site says otherwise."""

_TIMEOUT = 60.0
"""Seconds. A controller that does not answer must not hang a login node's command."""


_OUT = ("down", "drain", "fail", "maint", "inval", "unk")
"""How states of nodes begin that no job gets before somebody has done something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One job, or one task of an array, as squeue shows it. `reason` says why it waits."""

    id: str
    state: str
    reason: str
    nodes: str

    def __str__(self) -> str:
        where = f" on {self.nodes}" if self.nodes else f" ({self.reason})" if self.reason != "None" else ""
        return f"{self.state}{where}"


class SlurmFailed(CptError):
    """A SLURM command refused or did not answer; the message is SLURM's own."""


def environment(cluster: ClusterConfig) -> dict[str, str]:
    """The caller's environment for a client: the cluster's SLURM_CONF, and nothing of a job it may itself run in."""
    own = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    return own | ({"SLURM_CONF": cluster.slurm_conf} if cluster.slurm_conf else {})


@contextmanager
def using(cluster: ClusterConfig) -> Iterator[None]:
    """This process's environment becomes the client's, for libraries that run sbatch themselves."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(cluster))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def require(cluster: ClusterConfig) -> None:
    """Raises `UserError` when no job can be submitted from here: no client, or no controller that answers."""
    fix = "cpt devcluster start" if cluster.name == "devcluster" else "run this on the cluster's login node, or cluster=local"
    if shutil.which("sbatch") is None:
        raise UserError(Problem(where="cluster", what=f"{cluster.name}: no sbatch here", why="jobs are submitted with SLURM's own commands", fix=fix))
    try:
        _run(cluster, "sinfo", "--noheader", "--format=%P")
    except SlurmFailed as error:
        raise UserError(Problem(where="cluster", what=f"{cluster.name} does not answer", why=str(error), fix=fix)) from None


def submit(cluster: ClusterConfig, script: Path, exclude: Sequence[str] = ()) -> str:
    """Hand a script to sbatch, without these nodes; returns the job id. Raises `SlurmFailed` with what SLURM says."""
    without = [f"--exclude={','.join(exclude)}"] if exclude else []
    return _run(cluster, "sbatch", "--parsable", *without, str(script)).strip().partition(";")[0]


def jobs(cluster: ClusterConfig, *, job_id: str = "", name: str = "") -> list[Job]:
    """What SLURM has queued or running by id (an array: its unfinished tasks) or by name, whoever submitted it; empty when nothing."""
    which = f"--jobs={job_id}" if job_id else f"--name={name}"
    try:
        text = _run(cluster, "squeue", "--noheader", "--array", which, "--format=%i|%T|%r|%N")
    except SlurmFailed as error:
        if "Invalid job id" in str(error):
            return []
        raise
    return [Job(id=name, state=state, reason=reason, nodes=nodes) for name, state, reason, nodes in (line.split("|") for line in text.splitlines())]


def final_state(cluster: ClusterConfig, job_id: str) -> str:
    """State of a job that SLURM still remembers (`COMPLETED`, `FAILED`, `TIMEOUT`, ...); empty when it has forgotten."""
    try:
        text = _run(cluster, "scontrol", "--oneliner", "show", "job", job_id)
    except SlurmFailed as error:
        if "Invalid job id" in str(error):
            return ""
        raise
    found = re.search(r"\bJobState=(\S+)", text)
    return found.group(1) if found else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PastJob:
    """One life of a job in SLURM's accounting: a requeued job has one for each start. Times in seconds since the epoch; 0: not yet."""

    id: str
    state: str
    """`COMPLETED`, `REQUEUED`, `NODE_FAIL`, `CANCELLED by 1000`, ..."""
    submitted: float
    started: float
    ended: float
    seconds: float
    nodes: int


def sacct_history(cluster: ClusterConfig, job_id: str) -> list[PastJob]:
    """All lives of a job, in order; empty where SLURM keeps no accounts, or its database does not answer."""
    fields = "JobID,State,Submit,Start,End,ElapsedRaw,NNodes"
    command = ("sacct", "--duplicates", "--allocations", "--noheader", "--parsable2", f"--jobs={job_id}", f"--format={fields}")
    try:
        text = _run(cluster, "env", "SLURM_TIME_FORMAT=%s", *command)
    except SlurmFailed:
        return []
    lines = [line.split("|") for line in text.splitlines()]
    return [
        PastJob(
            id=name, state=state, submitted=_moment(submit), started=_moment(start), ended=_moment(end), seconds=_moment(elapsed), nodes=int(_moment(nodes))
        )
        for name, state, submit, start, end, elapsed, nodes in (line for line in lines if len(line) == 7)
    ]


def _moment(text: str) -> float:
    """sacct's number; 0 for `Unknown` and `None`."""
    return float(text) if text.isdigit() else 0.0


def requeue(cluster: ClusterConfig, job_id: str) -> None:
    """Same job id, from the top, as soon as SLURM can."""
    _run(cluster, "scontrol", "requeue", job_id)


def end_time(cluster: ClusterConfig, job_id: str) -> float | None:
    """When SLURM will end the job, seconds since the epoch; None when it does not say."""
    try:
        found = re.search(r"\bEndTime=(\d\S+)", _run(cluster, "scontrol", "--oneliner", "show", "job", job_id))
    except SlurmFailed:
        return None
    return time.mktime(time.strptime(found.group(1), "%Y-%m-%dT%H:%M:%S")) if found else None


def daemons(cluster: ClusterConfig, nodes: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Where slurmd listens on each node; without those that SLURM does not describe."""
    text = _run(cluster, "scontrol", "--oneliner", "show", "node", ",".join(nodes))
    found: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        facts = dict(re.findall(r"\b(NodeName|NodeAddr|Port)=(\S+)", line))
        if {"NodeName", "NodeAddr"} <= facts.keys():
            found[facts["NodeName"]] = (facts["NodeAddr"], int(facts.get("Port", SLURMD_PORT)))
    return found


def signal_step(cluster: ClusterConfig, job_id: str, name: str, signal: str) -> None:
    """Send a signal to every task of the job's step of that name; quietly, when there is none or not all can be reached."""
    with suppress(SlurmFailed):
        steps = [line.split() for line in _run(cluster, "squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i %j").splitlines()]
        for step in (step[0] for step in steps if step[1:] == [name]):
            with suppress(SlurmFailed):
                _run(cluster, "scancel", f"--signal={signal}", step)


def cancel(cluster: ClusterConfig, job_id: str) -> None:
    """End a job for good."""
    _run(cluster, "scancel", job_id)


def host_names(cluster: ClusterConfig, node_list: str) -> list[str]:
    """`node[1-3]` -> its names."""
    return _run(cluster, "scontrol", "show", "hostnames", node_list).split()


def fabric(cluster: ClusterConfig) -> Fabric:
    """Switches or blocks between nodes; flat where the site has none, or SLURM does not answer. Raises `UserError` for switches that are no tree."""
    try:
        text = _run(cluster, "scontrol", "show", "topology")
    except SlurmFailed:
        return Fabric()
    return from_scontrol(text) or Fabric()


def version(cluster: ClusterConfig) -> tuple[int, ...]:
    """(22, 5, 8), of the commands here; empty where there are none."""
    try:
        found = re.search(r"\d+(?:\.\d+)+", _run(cluster, "sinfo", "--version"))
    except SlurmFailed:
        return ()
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def usable(cluster: ClusterConfig) -> list[str]:
    """Nodes that a job of the cluster's partition can get, now or when others have ended; none when SLURM does not answer."""
    where = [f"--partition={cluster.partition}"] if cluster.partition else []
    try:
        text = _run(cluster, "sinfo", "--noheader", "--Node", *where, "--format=%N %P %T")
    except SlurmFailed:
        return []
    rows = [line.split() for line in text.splitlines()]
    fit = (node for node, partition, state in rows if (cluster.partition or partition.endswith("*")) and not state.startswith(_OUT))
    return list(dict.fromkeys(fit))


def lost_nodes(cluster: ClusterConfig, nodes: Sequence[str]) -> list[str]:
    """Those of `nodes` that SLURM calls down or hears nothing from; none when SLURM itself does not answer."""
    try:
        text = _run(cluster, "sinfo", "--noheader", "--Node", f"--nodes={','.join(nodes)}", "--format=%N %T")
    except SlurmFailed:
        return []
    return sorted({node for node, state in (line.split() for line in text.splitlines()) if state.startswith("down") or state.endswith("*")})


def _run(cluster: ClusterConfig, *command: str) -> str:
    if cluster.slurm_conf and not Path(cluster.slurm_conf).is_file():  # SLURM itself would look for it a minute long
        raise SlurmFailed(f"cluster {cluster.name} is not running: no {cluster.slurm_conf}")
    try:
        done = subprocess.run(command, env=environment(cluster), capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except FileNotFoundError:
        raise SlurmFailed(f"{command[0]}: not installed") from None
    except subprocess.TimeoutExpired:
        raise SlurmFailed(f"{command[0]}: no answer in {_TIMEOUT:.0f} s") from None
    if done.returncode:
        raise SlurmFailed(f"{command[0]}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout
