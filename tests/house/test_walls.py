"""Who may import whom, and what a login node never loads."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import VERBS

COMPUTES = {"base", "train", "evaluate", "export"}
"""Verbs that may import torch; all others run on a login node."""
HEAVY = ("torch", "transformers", "megatron", "datasets", "lm_eval")


def loaded(repository: Path, code: str) -> set[str]:
    """Top-level packages in memory after `code`."""
    script = f"import sys\n{code}\nprint('LOADED', *sorted({{name.partition('.')[0] for name in sys.modules}}))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.rpartition("LOADED ")[2].split())


def test_import_contracts(repository: Path) -> None:
    """The layers of pyproject.toml; a new room must be placed there before it is built."""
    linter = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run([linter, "--no-cache"], cwd=repository, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_help_loads_nothing_heavy(repository: Path) -> None:
    found = loaded(repository, "from jobs.cli import main; main(['--help'])")
    assert found.isdisjoint({*HEAVY, "hydra", "omegaconf", "mlflow", "matplotlib", "numpy", "submitit", "rich"})


@pytest.mark.parametrize("verb", ["config", "plan"])
def test_login_node_verbs_run_without_torch(repository: Path, tmp_path: Path, verb: str) -> None:
    code = f"from jobs.cli import main; assert main(['{verb}', 'experiment=ellama_70b', 'run_root={tmp_path}']) == 0"
    assert loaded(repository, code).isdisjoint({*HEAVY, "mlflow", "matplotlib"})


def test_login_node_verbs_import_without_torch(repository: Path) -> None:
    verbs = [verb for verb in VERBS if verb not in COMPUTES]
    found = loaded(repository, "\n".join(f"import jobs.{verb}" for verb in verbs))
    assert found.isdisjoint(HEAVY)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_file(repository: Path, verb: str) -> None:
    module = importlib.import_module(f"jobs.{verb}")
    assert callable(module.main)
    assert (module.__doc__ or "").startswith(f"`cpt {verb}")


def test_every_entry_is_a_verb(repository: Path) -> None:
    entries = {path.stem for path in (repository / "jobs").glob("*.py") if "\ndef main(" in path.read_text()} - {"cli"}
    assert entries == set(VERBS)


def test_unknown_verb_is_the_users_error(repository: Path) -> None:
    ended = subprocess.run([sys.executable, "-m", "jobs.cli", "fly"], cwd=repository, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "no verb 'fly'" in ended.stderr
    assert "prepare" in ended.stderr


def test_bad_config_exits_2_and_starts_nothing(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.cli", "plan", "experiment=ellama_70b", "slurm.nodes=59", f"run_root={tmp_path}/runs"]
    ended = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "slurm.nodes: is 59 x 8 ranks = 472" in ended.stderr
    assert "nothing was started" in ended.stderr
    assert not (tmp_path / "runs").exists()
