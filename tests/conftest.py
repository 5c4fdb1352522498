"""What every test shares: one thread a process, self-skipping of tests that need a machine, and who may run side by side."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples each time, and no time limit: a busy machine is not a bug.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason; in the order of their turns, which `--no-loadscope-reorder` keeps."""
    items.sort(key=lambda item: turn(item.path))
    reasons = {"slurm": why_no_slurm(), "gpu": why_no_gpu()}
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A module's tests stay on one worker; all modules that start a real SLURM are on the same one, so they never run side by side.

    Read from the text of the module: the process that hands out tests collects none and knows no markers.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneClusterAtATime(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return "slurm" if turn(config.rootpath / module) == 0 else module

    return OneClusterAtATime(config, log)


@functools.cache
def turn(module: Path) -> int:
    """When a test module runs: those that start a real SLURM first, beside what takes one process; those that spawn ranks when that is over."""
    text = module.read_text()
    return 0 if re.search(r"mark\.slurm\b", text) else 2 if re.search(r"mark\.engine\b", text) else 1


def why_no_slurm() -> str:
    """Empty when a real SLURM can be started here."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged", "ip") if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if missing:
        return f"a real SLURM needs {', '.join(missing)} on this machine (make setup as root installs them)"
    return "" if os.geteuid() == 0 else "a real SLURM on one machine needs root"


def why_no_gpu() -> str:
    """Empty when a CUDA device answers; asked of the driver, so that collecting tests does not import torch."""
    if not shutil.which("nvidia-smi"):
        return "no CUDA device on this machine"
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return "" if listed.returncode == 0 and "GPU" in listed.stdout else "no CUDA device answers nvidia-smi"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run root with the tiny base and the sample corpus, made once."""
    from tests.ranks import run_ranks

    folder = tmp_path_factory.mktemp("runs")
    run_ranks(1, _make_root, folder)
    return folder


@pytest.fixture(scope="session")
def experts_root(root: Path) -> Path:
    """The same run root, with the base of the tiny model with experts."""
    from tests.ranks import run_ranks

    run_ranks(1, _make_experts, root)
    return root


def _make_experts(_world: object, folder: Path) -> None:
    from tests.tiny import make_experts

    make_experts(folder)


def _make_root(_world: object, folder: Path) -> None:
    from tests.tiny import make_root

    make_root(folder)
