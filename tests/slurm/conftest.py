"""A real cluster for the whole session, and runs on it whose ranks are `stand_in.py` instead of torch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import submitit  # noqa: F401 - its first import sets logging up anew, at which absl's handler closes what was stderr: not while a test captures that

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_text
from cpt.core.attempts import AttemptBegin, AttemptEnd
from cpt.core.paths import RunPaths
from cpt.tracking.journal import read_lines
from slurm import client
from slurm.devcluster import DevCluster, can_run
from slurm.script import Origin, render

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))

SMALL = ["train.train_tokens=81920", "slurm.time=10:00", "slurm.heartbeat_seconds=0.5", "slurm.silence_seconds=4", "slurm.kill_seconds=5"]
"""As quick to notice as is safe on a busy machine with two cores."""

NODES = 24

COMPOSING = Lock()
"""Hydra's state is global, and faults are played side by side."""


def wait_for(ready: Callable[[], Any], what: str, seconds: float = 150.0) -> Any:
    """The first true value; fails, naming `what`, when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)
    return value


def behave(run: RunPaths, **how: Any) -> None:
    write_text(run.root / "behave.json", json.dumps(how))


@dataclass
class Submitted:
    """A run on the cluster."""

    config: RunConfig
    run: RunPaths
    job: str

    def state(self) -> str:
        return client.final_state(self.config.cluster, self.job)

    def ended(self) -> str:
        """The job's last state, once it has one."""
        final = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        return wait_for(lambda: self.state() if self.state() in final else "", f"the end of {self.run.root.name}: {self.log()}")

    def begins(self) -> list[AttemptBegin]:
        return [AttemptBegin.load(attempt.begin) for attempt in self.run.attempts() if attempt.begin.is_file()]

    def ends(self) -> list[AttemptEnd]:
        return [AttemptEnd.load(attempt.end) for attempt in self.run.attempts() if attempt.end.is_file()]

    def rows(self, attempt: int) -> list[dict[str, Any]]:
        """The journaled steps of one attempt."""
        path = self.run.metrics(attempt)
        return list(read_lines(path)) if path.is_file() else []

    def log(self) -> str:
        return self.run.job_log.read_text() if self.run.job_log.is_file() else ""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    possible, why = can_run()
    if not possible:
        pytest.skip(why)
    cluster = DevCluster(tmp_path_factory.mktemp("cluster"))
    cluster.start(NODES)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def on_cluster(cluster: DevCluster) -> list[str]:
    return [*SMALL, f"cluster.slurm_conf={cluster.files.slurm_conf}"]


@pytest.fixture(scope="session")
def start(on_cluster: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Submitted]:
    """start(name, overrides, **behavior): two nodes x two ranks unless the overrides say otherwise."""
    root = tmp_path_factory.mktemp("runs with space")

    def submit(name: str, overrides: list[str] | None = None, **how: Any) -> Submitted:
        with COMPOSING:
            config = compose_config([*on_cluster, "slurm.nodes=2", "slurm.tasks_per_node=2", *(overrides or [])])
        run = RunPaths(root / name)
        write_text(run.config, to_yaml(config))
        behave(run, **({"steps": 60, "save_every": 5, "seconds": 0.15} | how))
        write_text(run.script, render(config, run, Origin(), STAND_IN))
        return Submitted(config, run, client.submit(config.cluster, run.script))

    return submit
