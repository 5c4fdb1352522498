"""Hand a run directory to its scheduler, and say where its job stands."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from cpt.config.amend import changes
from cpt.config.run import RunConfig
from cpt.config.running import Scheduler
from cpt.core.artifacts import Artifact
from cpt.core.attempts import StopRecord
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths
from cpt.topology import Hint
from cpt.topology import hint as ask
from cpt.topology.fabric import Kind
from cpt.topology.layout import from_config
from slurm import client, local, process
from slurm.script import job_name


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord(Artifact):
    """The last submission of a run by `cpt launch` (`job.json`). `started` tells a local supervisor from a later process of its pid."""

    id: str
    scheduler: str
    time: float
    started: int = 0


def require(config: RunConfig) -> None:
    """Raises `UserError` when the scheduler of this config cannot take a job now, or a secret of its ranks is not in the environment."""
    why = "ranks take it from the environment of whoever submits; no file has it"
    missing = [name for name in config.cluster.secrets if not os.environ.get(name)]
    if problems := [Problem(where="cluster.secrets", what=f"{name} is not set", why=why, fix=f"export {name}=...") for name in missing]:
        raise UserError(problems)
    if config.cluster.scheduler is Scheduler.slurm:
        client.require(config.cluster)


def compact(config: RunConfig) -> Hint | None:
    """What to ask SLURM for, so that the nodes of this run hang on few switches; None where it knows of none, or asking would bring nothing."""
    most = config.slurm.nodes + config.slurm.spare_nodes
    chosen = config.slurm.extra.keys() & {"nodelist", "reservation", "constraint"}  # SLURM would wait for switches that these nodes do not have
    if config.cluster.scheduler is not Scheduler.slurm or not config.slurm.topology or most == 1 or chosen:
        return None
    try:
        fabric = client.fabric(config.cluster)
        if fabric.kind is Kind.flat:
            return None
        usable = [node for node in client.usable(config.cluster) if node not in config.slurm.exclude]
        found = ask(fabric, most, client.version(config.cluster), from_config(config).pipeline_nodes, usable=usable or None)
    except UserError:  # more nodes than there are, or switches in a circle: sbatch knows better words
        return None
    if fabric.kind is Kind.block and config.slurm.spare_nodes:
        found = Hint(options={"nodes": str(most)} | found.options, why=f"{found.why}; spares included, for of blocks SLURM takes one number of nodes, no range")
    return found if found.options else None


def is_done(run: RunPaths) -> bool:
    """Whether training reached its last step."""
    return run.stopped.is_file() and StopRecord.load(run.stopped).reason == "done"


def submit(config: RunConfig, run: RunPaths) -> JobRecord:
    """Submit the directory's own script, or start its supervisor; returns at once."""
    if config.cluster.scheduler is Scheduler.slurm:
        record = JobRecord(id=client.submit(config.cluster, run.script), scheduler="slurm", time=time.time())
    else:
        (pid,) = local.start(run.root / "submitit", [local.Supervised([run.root])])
        record = JobRecord(id=str(pid), scheduler="local", time=time.time(), started=process.describe(pid).started)
    record.save(run.job)
    return record


def queued(config: RunConfig, run: RunPaths) -> str:
    """State and place of the run's job, whoever submitted it; empty when there is none."""
    if config.cluster.scheduler is Scheduler.slurm:
        return ", ".join(f"job {job.id} {job}" for job in client.jobs(config.cluster, name=job_name(run)))
    if not run.job.is_file():
        return ""
    record = JobRecord.load(run.job)
    alive = process.lives(process.ProcessRecord(pid=int(record.id), started=record.started))
    return f"supervisor {record.id} RUNNING" if alive else ""


def differences(sealed: RunConfig, asked: RunConfig) -> list[str]:
    """Settings that do not change results, and so found this directory, but are others than it was sealed with."""
    return [f"{change.key} stays {change.old!r}, as sealed; asked was {change.new!r}" for change in changes(sealed, asked)]


def follow(config: RunConfig, run: RunPaths) -> list[str]:
    """What to type to see more, to stop, and to go on."""
    inside = f"SLURM_CONF={config.cluster.slurm_conf} " if config.cluster.slurm_conf else ""
    commands = [f"cpt status {_short(run.root)}", f"tail -f {_short(run.root)}/attempts/*/rank_0.log", f"touch {_short(run.triggers)}/stop"]
    again = f"{inside}sbatch {_short(run.script)}" if config.cluster.scheduler is Scheduler.slurm else f"cpt launch --run {_short(run.root)}"
    return [*commands, again]


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
