"""What one node finds out about itself; nvidia-smi and the site's check are scripts on the path."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cpt.core.errors import MissingInput
from cpt.core.paths import RunPaths
from slurm import node
from slurm.node import NodeReport, PreflightRequest, report_path, request_path

GPU = "{index}, NVIDIA H100 80GB HBM3, 570.86.15, 81559, {used}, {errors}"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi of two healthy GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    says(program, [GPU.format(index=0, used=0, errors=0), GPU.format(index=1, used=512, errors="[N/A]")])
    return program


def says(program: Path, lines: list[str], code: int = 0) -> None:
    text = "\n".join(lines)
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
    program.chmod(0o755)


def asked(tmp_path: Path, gpus: int = 0, free: int = 0, check: list[str] | None = None, seconds: float = 30.0) -> RunPaths:
    run = RunPaths(tmp_path / "run")
    request = PreflightRequest(token="t1", gpus=gpus, free_bytes=free, health_check=check or [], seconds=seconds)
    request.save(request_path(run.attempt(3)))
    return run


def test_a_fit_node(tmp_path: Path, smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    run = asked(tmp_path, gpus=2, free=1, check=["true"])
    found = node.report(run, 3)
    assert found.problems == []
    assert NodeReport.load(report_path(run.attempt(3), "node7")) == found
    assert found.token == "t1" and len(found.gpus) == 2 and found.versions["driver"] == "570.86.15" and "cpt" in found.versions
    assert abs(found.clock_skew) < 1 and found.uptime > 0 and len(found.boot) == 36 and "SDPA" in found.attention
    assert sorted(path.name for path in run.attempt(3).preflight.iterdir()) == ["node7.json", "request"], "nothing else is left"


def test_nobody_asked(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        node.report(RunPaths(tmp_path), 0)


def test_gpus_are_not_looked_for_where_none_are_expected(tmp_path: Path, smi: Path) -> None:
    says(smi, ["broken"], code=1)
    assert node.report(asked(tmp_path), 3).gpus == []


@pytest.mark.parametrize(
    ("lines", "code", "problem"),
    [
        ([GPU.format(index=0, used=0, errors=0)], 0, "1 of 2 GPUs"),
        ([GPU.format(index=0, used=0, errors=0), GPU.format(index=1, used=0, errors=4)], 0, "GPU 1: 4 memory errors that ECC could not correct"),
        ([GPU.format(index=0, used=40000, errors=0), GPU.format(index=1, used=0, errors=0)], 0, "GPU 0: 39 of 80 GiB in use by somebody else"),
        (["Unable to determine the device handle for GPU0000:4E:00.0: GPU is lost."], 15, "nvidia-smi: Unable to determine the device handle"),
    ],
)
def test_gpus_that_are_not_well(smi: Path, lines: list[str], code: int, problem: str) -> None:
    says(smi, lines, code)
    (found,) = node.look_at_gpus(2).problems
    assert found.startswith(problem)


def test_without_nvidia_smi_only_the_comparison_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert (node.look_at_gpus(8).problems, node.look_at_gpus(8).driver) == ([], "none")


def test_a_clock_that_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 93)
    assert node.report(asked(tmp_path), 3).problems == ["clock is 93 s ahead"]
    monkeypatch.setattr(time, "time", lambda: real() - 93)
    assert node.report(asked(tmp_path), 3).problems == ["clock is 93 s behind"]


def test_too_little_space(tmp_path: Path) -> None:
    (problem,) = node.report(asked(tmp_path, free=10**18), 3).problems
    assert "GB free" in problem and "two checkpoints take 1000000000.0 GB" in problem


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        (["sh", "-c", "echo; echo link 3 is down; echo more; exit 1"], "sh: link 3 is down"),
        (["sh", "-c", "echo no luck >&2; exit 1"], "sh: no luck"),
        (["false"], "false: ended with 1"),
        (["/no/such/check"], "check: No such file or directory"),
    ],
)
def test_the_sites_own_check(tmp_path: Path, check: list[str], problem: str) -> None:
    assert node.report(asked(tmp_path, check=check), 3).problems == [problem]


def test_a_check_that_hangs_with_all_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    assert node.ailments(["sh", "-c", "sleep 60 & sleep 60"], 0.5) == ["sh: no answer in 0 s"]
    assert time.monotonic() - started < 30


def test_the_nodes_half_stays_light() -> None:
    """Sixty nodes load it at once."""
    code = "import sys, jobs.preflight; print([name for name in ('hydra', 'omegaconf', 'rich', 'torch', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
