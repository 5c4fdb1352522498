"""Sections about where a run happens: `cluster` and `fabric` (facts of the machines), `slurm` (policy of the job), `tracking`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from cpt.config.hardware import HardwareConfig, RatesConfig
from cpt.config.section import Section, positive
from cpt.config.variables import assigned, is_name, secret_problems, variable_problems
from cpt.core.errors import Problem


class Scheduler(StrEnum):
    """Who starts the ranks."""

    slurm = "slurm"
    local = "local"  # submitit's local executor: this machine, no node failures


class Runtime(StrEnum):
    """What a rank runs in. SLURM's commands and the supervisor always run outside."""

    bare = "bare"  # modules or a virtual environment, by `cluster.setup`
    apptainer = "apptainer"
    pyxis = "pyxis"  # NVIDIA's plugin for srun, over enroot


def mount_separators(runtime: Runtime) -> str:
    """Characters that cannot be in a mounted path. pyxis has a shell echo its mounts into a table with spaces between columns."""
    return ':,"$`\\ \t\n' if runtime is Runtime.pyxis else ":,"


@dataclass(kw_only=True, slots=True)
class ClusterConfig(Section):
    """Facts about the machines; nothing about one run."""

    name: str = ""
    scheduler: Scheduler = Scheduler.slurm
    slurm_conf: str = ""
    """Path exported as SLURM_CONF for every client call; empty uses the site's own."""
    partition: str = ""
    account: str = ""
    gpus_per_node: int = 8
    """0 means the ranks compute on CPUs."""
    max_nodes: int = 0
    """Nodes that one job may have; 0 means unknown."""
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    rates: RatesConfig = field(default_factory=RatesConfig)
    max_time: str = ""
    """Longest time limit of the partition, as `slurm.time`; empty means unknown."""
    setup: list[str] = field(default_factory=list)
    """Shell lines that the batch script runs first, outside of any container (modules, virtual environment)."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables for every rank: facts of the site. What the network needs belongs to `fabric`."""
    secrets: list[str] = field(default_factory=list)
    """Names, never values, of variables that ranks take from the environment of whoever submits."""
    runtime: Runtime = Runtime.bare
    image: str = ""
    """What the container runtime starts: a file that every node sees, or what the runtime can pull. It brings the packages; the code is the
    checkout's, so launch from there."""
    mounts: list[str] = field(default_factory=list)
    """`source:target[:flags]`, beside the run root and the checkout, which are always there."""
    rank_python: str = "python3"
    """Interpreter inside the image; `runtime: bare` uses the one that `cpt launch` runs with."""
    cpu_bind: str = ""
    """srun's `--cpu-bind`, so that a rank's cores are near its GPU: `map_ldom:` takes one NUMA node per rank of a node. Empty leaves it to the site."""
    mem_bind: str = ""
    """srun's `--mem-bind`; `local` allocates where the rank's cores are."""
    health_check: list[str] = field(default_factory=list)
    """A command that the preflight runs on each node, where ranks would run: non-zero keeps the node out, its first line says why. `[dcgmi, diag, -r, '1']`."""
    gpu_hour_price: float = 0.0
    """What one GPU costs per hour; 0 shows no cost."""
    currency: str = "USD"

    def problems(self) -> Iterator[Problem]:
        yield from variable_problems(self.environment, "environment", "cluster")
        yield from secret_problems(assigned(self.setup), "setup")
        yield from self._container_problems()
        for name in self.secrets:
            if not is_name(name):
                yield Problem(where="secrets", what=repr(name.partition("=")[0]), why="is a list of names, without values", fix="secrets=[HF_TOKEN]")
        if self.max_time and not minutes(self.max_time) > 0:
            yield Problem(where="max_time", what=repr(self.max_time), why="is not a time limit of SLURM", fix="max_time=2-00:00:00")
        if not self.gpu_hour_price >= 0:
            yield Problem(where="gpu_hour_price", what=f"is {self.gpu_hour_price}", why="is money per GPU and hour", fix="gpu_hour_price=0")

    def _container_problems(self) -> Iterator[Problem]:
        inside = self.runtime is not Runtime.bare
        if inside and not self.image:
            yield Problem(where="image", what="is empty", why=f"runtime {self.runtime} starts ranks in a container", fix="image=<file or address of an image>")
        if not inside and (self.image or self.mounts):
            what = "has an image or mounts and no container"
            yield Problem(where="runtime", what=what, why="bare ranks see the node as it is", fix="runtime=apptainer or cluster.runtime=pyxis")
        if inside and self.scheduler is Scheduler.local:
            yield Problem(where="runtime", what=f"is {self.runtime}", why="the local scheduler starts ranks on this machine as they are", fix="runtime=bare")
        for mount in self.mounts:
            part = f"[^{re.escape(mount_separators(self.runtime))}]"
            if not re.fullmatch(rf"/{part}*:/{part}*(:{part}+)?", mount):
                why = "both sides are absolute paths without what the runtime takes them apart at"
                yield Problem(where="mounts", what=repr(mount), why=why, fix="mounts=['/source:/target','/source:/target:ro']")


@dataclass(kw_only=True, slots=True)
class FabricConfig(Section):
    """What NCCL must know about the network between nodes; nothing that changes results."""

    name: str = "none"
    environment: dict[str, str] = field(default_factory=dict)
    """Variables for every rank. Facts of the site only: tuning variables that outlive their reason cost more than they give."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Variable -> why it is set, one line; stands beside it in the batch script."""

    def problems(self) -> Iterator[Problem]:
        yield from variable_problems(self.environment, "environment", "fabric")


@dataclass(kw_only=True, slots=True)
class SlurmConfig(Section):
    """Policy of one job."""

    nodes: int = 1
    tasks_per_node: int = 1
    """Ranks per node; one srun task per GPU."""
    cpus_per_task: int = 1
    time: str = "2:00:00"
    """Time limit as SLURM writes it: minutes, MM:SS, H:MM:SS, D-H, D-H:MM or D-H:MM:SS."""
    signal_lead: int = 60
    """Seconds before the time limit at which the job is told to save and requeue."""
    spare_nodes: int = 0
    """Nodes allocated beyond `nodes`, idle until one of those is lost: recovery without going back to the queue."""
    exclude: list[str] = field(default_factory=list)
    """Nodes to keep out."""
    topology: bool = True
    """Order ranks by the switches between their nodes, and ask SLURM for few of them. Changes nothing where SLURM knows of none."""
    requeue: bool = True
    """False where the site does not let users requeue: then the script submits itself again, as a chain of jobs."""
    relaunch: bool = True
    """Start again inside the allocation whenever enough healthy nodes are left; false always goes back to the queue."""
    max_attempts: int = 1000
    """The last fence; what counts before it is progress."""
    max_no_progress: int = 3
    """Attempts in a row without a new checkpoint, whatever ended them, before the job is held."""
    preflight: bool = True
    """Ask every node how it is before ranks start on it."""
    preflight_seconds: float = 120.0
    """A node that has not reported by then has failed its preflight."""
    heartbeat_seconds: float = 5.0
    """Between two heartbeats of a rank."""
    silence_seconds: float = 30.0
    """A node is lost when its ranks have been silent that long, others have not, and SLURM's daemon on it does not answer."""
    start_seconds: float = 1800.0
    """Until the first step of an attempt is done; longer is a hang."""
    hang_seconds: float = 600.0
    """Least time without progress that is a hang; the real limit is `hang_factor` times the longest step or save so far, if that is more."""
    hang_factor: float = 10.0
    kill_seconds: float = 30.0
    """From the first rank's crash until all others must be gone; then they are killed."""
    array_parallelism: int = 8
    """Trials of a sweep that may run at the same time."""
    extra: dict[str, str] = field(default_factory=dict)
    """More sbatch options, by long name."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "nodes", "tasks_per_node", "cpus_per_task", "max_attempts", "max_no_progress", "array_parallelism")
        yield from positive(self, "preflight_seconds", "heartbeat_seconds", "start_seconds", "hang_seconds", "hang_factor", "kill_seconds")
        if self.silence_seconds < 3 * self.heartbeat_seconds:
            why = f"one late heartbeat (each {self.heartbeat_seconds:g} s) must not look like a lost node"
            yield Problem(where="silence_seconds", what=f"is {self.silence_seconds:g}", why=why, fix=f"silence_seconds={3 * self.heartbeat_seconds:g}")
        if self.spare_nodes < 0:
            yield Problem(where="spare_nodes", what=f"is {self.spare_nodes}", why="counts nodes", fix="spare_nodes=0")
        if not self.minutes > 0:
            yield Problem(where="time", what=repr(self.time), why="is not a time limit of SLURM", fix="slurm.time=2:00:00 or slurm.time=1-12:00:00")
        elif not 0 <= self.signal_lead < 60 * self.minutes:
            yield Problem(
                where="signal_lead",
                what=f"is {self.signal_lead} s",
                why=f"must lie within slurm.time={self.time}",
                fix="slurm.signal_lead=<seconds that a save takes>",
            )
        yield from secret_problems(self.extra, "extra")
        for name in self.extra:
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
                yield Problem(where="extra", what=repr(name), why="is not the long name of an sbatch option", fix="slurm.extra.<name>=<value>")

    @property
    def minutes(self) -> float:
        """The time limit; 0 when it is none that SLURM would take."""
        return minutes(self.time)

    @property
    def world_size(self) -> int:
        return self.nodes * self.tasks_per_node


@dataclass(kw_only=True, slots=True)
class TrackingConfig(Section):
    """MLflow. Training never talks to it: `cpt sync` copies the journal there."""

    enabled: bool = True
    uri: str = ""
    """Empty: sqlite at `<run_root>/mlflow.db`."""
    experiment: str = "cpt"

    def problems(self) -> Iterator[Problem]:
        if urlsplit(self.uri).password:
            why = "the config is written to files; MLflow reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            yield Problem(where="uri", what="holds a password", why=why, fix="uri=<address without user and password>")


def minutes(limit: str) -> float:
    """A time limit as SLURM writes it; 0 when it is none that SLURM would take."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if not found:
        return 0.0
    days, *rest = found.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is not None:  # D-H[:MM[:SS]]
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:  # H:MM:SS
        hours, minutes, seconds = parts
    else:  # M[:SS]
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60
