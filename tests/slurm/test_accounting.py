"""sacct as it answers with and without accounts."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from cpt.config.running import ClusterConfig
from slurm import client

CLUSTER = ClusterConfig(name="devcluster", slurm_conf=__file__)

TEXT = """\
4711|NODE_FAIL|1795460000|1795460010|1795460110|100|5
4711|CANCELLED by 1000|1795460115|Unknown|Unknown|0|4
"""


def answers(monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str = "", returncode: int = 0) -> list[tuple[str, ...]]:
    asked: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, returncode, stdout, stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_every_life_of_a_job_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, TEXT)
    first, second = client.sacct_history(CLUSTER, "4711")
    assert (first.state, first.started, first.seconds, first.nodes) == ("NODE_FAIL", 1795460010.0, 100.0, 5)
    assert (second.state, second.submitted, second.started) == ("CANCELLED by 1000", 1795460115.0, 0.0)
    assert asked[0][:3] == ("env", "SLURM_TIME_FORMAT=%s", "sacct") and "--duplicates" in asked[0]


def test_where_nobody_keeps_accounts_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "", "Slurm accounting storage is disabled", 1)
    assert client.sacct_history(CLUSTER, "4711") == []
    assert client.sacct_history(ClusterConfig(name="away", slurm_conf="/no/such/slurm.conf"), "1") == []
