"""Run directories with a real config and a real journal, and a real sqlite store (made once, copied)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_text
from cpt.core.paths import RunPaths
from cpt.tracking.journal import Journal
from cpt.tracking.store import ensure_store


def tiny_config(root: Path, *overrides: str) -> RunConfig:
    return compose_config(["model=tiny", "name=tiny", "train.train_tokens=81920", f"run_root={root}", *overrides])


@pytest.fixture(scope="session")
def template_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrations take seconds: one database for the whole session."""
    config = tiny_config(tmp_path_factory.mktemp("store"))
    ensure_store(config)
    return config.runs.tracking_database


@pytest.fixture
def root(tmp_path: Path, template_store: Path) -> Path:
    shutil.copy(template_store, tmp_path / "mlflow.db")
    return tmp_path


MakeRun = Callable[..., RunPaths]


@pytest.fixture
def make_run(root: Path) -> MakeRun:
    def make(folder: str = "tiny-0123456789", *overrides: str) -> RunPaths:
        run = RunPaths(root / folder)
        write_text(run.config, to_yaml(tiny_config(root, *overrides)))
        return run

    return make


def write_steps(run: RunPaths, attempt: int, steps: range, resume_step: int = 0, start: float = 1.7e9) -> None:
    """Journal `steps` of an attempt, one a second from `start`."""
    now = iter(range(10**6))
    with Journal(run, attempt, clock=lambda: start + attempt * 1000 + next(now)) as journal:
        journal.event("attempt_begin", resume_step=resume_step)
        for step in steps:
            journal.metrics(step, step * 8, step * 2048, {"train/loss": 3.0 - step / 100, "train/loss/listings": 2.0})
