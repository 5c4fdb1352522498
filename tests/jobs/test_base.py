"""The first commands of a new user, as the README says them: without an experiment, so without a budget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine


def cpt(verb: str, root: Path, code: int = 0) -> str:
    """In a process of its own: the engine joins a world of one, and tests that fork must not inherit that."""
    command = [sys.executable, "-m", "jobs.cli", verb, "model=tiny", "corpus=sample", f"run_root={root}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_base_and_a_corpus_need_no_run(tmp_path: Path) -> None:
    assert "fix: cpt base model=tiny" in cpt("prepare", tmp_path, code=2)
    said = cpt("base", tmp_path)
    assert "parity: largest logit difference" in said and "next: cpt prepare" in said
    cpt("prepare", tmp_path)
    assert "parity" in cpt("base", tmp_path), "again"
