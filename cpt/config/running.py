"""Sections about where a run happens: `cluster` (facts of the machines), `slurm` (policy of the job), `tracking`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cpt.config.section import Section, positive
from cpt.core.errors import Problem


class Scheduler(StrEnum):
    """Who starts the ranks."""

    slurm = "slurm"
    local = "local"  # submitit's local executor: this machine, no node failures


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
    device_memory: int = 80_000_000_000
    """Bytes per rank: GPU memory, or the rank's part of host memory."""
    peak_flops: float = 989e12
    """Dense bf16 FLOP/s per rank (H100 SXM: 989e12)."""
    assumed_mfu: float = 0.35
    """Model FLOPs utilization for estimates, causal-attention convention (e-Llama 70B: 0.37)."""
    setup: list[str] = field(default_factory=list)
    """Shell lines that the batch script runs first (modules, virtual environment)."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables for every rank: NCCL and fabric facts of the site."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "device_memory", "peak_flops", "assumed_mfu")


@dataclass(kw_only=True, slots=True)
class SlurmConfig(Section):
    """Policy of one job."""

    nodes: int = 1
    tasks_per_node: int = 1
    """Ranks per node; one srun task per GPU."""
    cpus_per_task: int = 1
    time: str = "2:00:00"
    signal_lead: int = 60
    """Seconds before the time limit at which the job is told to save and requeue."""
    exclude: list[str] = field(default_factory=list)
    """Nodes to keep out."""
    max_attempts: int = 50
    max_no_progress: int = 3
    """Attempts in a row without a new checkpoint before the job is held."""
    array_parallelism: int = 8
    """Trials of a sweep that may run at the same time."""
    extra: dict[str, str] = field(default_factory=dict)
    """More sbatch options, by long name."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "nodes", "tasks_per_node", "cpus_per_task", "max_attempts", "max_no_progress", "array_parallelism")
        if not re.fullmatch(r"\d+|\d+:\d+(:\d+)?|\d+-\d+(:\d+){0,2}", self.time):
            yield Problem(where="time", what=f"is {self.time!r}", why="is a limit as sbatch reads it", fix="time=2:00:00 or 1-12:00:00 (a day and a half)")

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
