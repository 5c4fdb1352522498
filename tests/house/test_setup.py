"""The parts of `.ci/setup` that differ between machines, each run by bash on a machine made up for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


def bash(repository: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with the functions of the set-up script at hand."""
    script = f"source {repository}/.ci/setup\n{code}"
    return subprocess.run(["/bin/bash", "-c", script], env=environment, capture_output=True, text=True, check=False)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with what the script itself needs and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dirname", "id", "sha256sum", "cat"):
        (folder / name).symlink_to(next(path for path in (Path("/usr/bin") / name, Path("/bin") / name) if path.exists()))
    return folder


def test_a_shim_that_does_not_run_is_passed_over(repository: Path, tools: Path, tmp_path: Path) -> None:
    program(tools / "python3.12", "echo 'python3.12: command not found' >&2; exit 127")
    program(tools / "python3", "echo 3.11")
    program(tmp_path / "pyenv/versions/3.12.1/bin/python", "echo 3.12")
    ended = bash(repository, "find_312 uv", PATH=str(tools), HOME=str(tmp_path), PYENV_ROOT=str(tmp_path / "pyenv"))
    assert ended.stdout.strip() == str(tmp_path / "pyenv/versions/3.12.1/bin/python")


def test_without_any_python_uv_is_asked(repository: Path, tools: Path, tmp_path: Path) -> None:
    program(tools / "uv", 'if [ "$2" = find ]; then echo /from/uv; fi')
    ended = bash(repository, "find_312 uv", PATH=str(tools), HOME=str(tmp_path))
    assert ended.stdout.strip() == "/from/uv"


@pytest.mark.skipif(os.path.exists("/usr/sbin/apt-get"), reason="apt-get lies where the script always looks")
def test_without_the_right_it_says_so_in_one_line_and_goes_on(repository: Path, tools: Path, tmp_path: Path) -> None:
    ended = bash(repository, "needed() { echo slurmctld; echo munge; }\nsystem_packages", PATH=str(tools), HOME=str(tmp_path))
    assert ended.returncode == 0
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("setup: no slurmctld munge and no right to install them: runs use submitit's local executor")


def test_what_is_missing_is_named_by_its_package(repository: Path, tools: Path, tmp_path: Path) -> None:
    for command in ("slurmctld", "slurmd", "munged", "ip"):
        program(tools / command, "exit 0")
    ended = bash(repository, f"PATH={tools}; needed", PATH=str(tools), HOME=str(tmp_path))
    assert ended.stdout.split() == ["slurm-client", "shellcheck"]


def test_a_new_lock_is_a_new_environment(repository: Path, tools: Path, tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("a==1\n")
    (tmp_path / "pyproject.toml").write_text("")
    before = bash(repository, f"cd {tmp_path}; wanted", PATH=str(tools), HOME=str(tmp_path)).stdout
    (tmp_path / "requirements.lock").write_text("a==2\n")
    after = bash(repository, f"cd {tmp_path}; wanted", PATH=str(tools), HOME=str(tmp_path)).stdout
    assert before
    assert before != after
