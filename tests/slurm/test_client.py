"""SLURM's commands at their own boundary: a fake subprocess, so the code that will run is the code that is tested."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cpt.config.running import ClusterConfig
from cpt.core.errors import UserError
from cpt.topology import Fabric
from slurm import client
from slurm.client import SlurmFailed

CLUSTER = ClusterConfig(name="devcluster", slurm_conf=__file__)


class Fake:
    """Answers for subprocess.run, and what it was asked."""

    def __init__(self, stdout: str = "", stderr: str = "", returncode: int = 0, error: Exception | None = None) -> None:
        self.answer = (returncode, stdout, stderr)
        self.error = error
        self.command: tuple[str, ...] = ()
        self.environment: dict[str, str] = {}

    def __call__(self, command: tuple[str, ...], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.command, self.environment = command, env
        if self.error:
            raise self.error
        return subprocess.CompletedProcess(command, *self.answer)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    def answers(*args: Any, **kwargs: Any) -> Fake:
        fake = Fake(*args, **kwargs)
        monkeypatch.setattr(subprocess, "run", fake)
        return fake

    return answers


def test_submit_returns_the_id_alone(slurm: Callable[..., Fake]) -> None:
    fake = slurm("4711;cluster2\n")
    assert client.submit(CLUSTER, Path("/runs/a b/run.sbatch")) == "4711"
    assert fake.command == ("sbatch", "--parsable", "/runs/a b/run.sbatch")


def test_clients_see_the_cluster_and_not_the_job_they_run_in(slurm: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SBATCH_PARTITION", "debug")
    fake = slurm("1\n")
    client.submit(CLUSTER, Path("x"))
    assert fake.environment["SLURM_CONF"] == __file__
    assert "SLURM_JOB_ID" not in fake.environment and "SBATCH_PARTITION" not in fake.environment


def test_using_gives_the_environment_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    before = dict(os.environ)
    with client.using(CLUSTER):
        assert os.environ["SLURM_CONF"] == __file__ and "SLURM_JOB_ID" not in os.environ
    assert dict(os.environ) == before


def test_a_refusal_carries_slurms_words(slurm: Callable[..., Fake]) -> None:
    slurm(stderr="sbatch: error: invalid partition specified: gpu", returncode=1)
    with pytest.raises(SlurmFailed, match="invalid partition"):
        client.submit(CLUSTER, Path("x"))


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("sbatch", 60)])
def test_a_client_that_cannot_answer(slurm: Callable[..., Fake], error: Exception) -> None:
    slurm(error=error)
    with pytest.raises(SlurmFailed, match=r"sbatch: (not installed|no answer)"):
        client.submit(CLUSTER, Path("x"))


def test_jobs_by_name(slurm: Callable[..., Fake]) -> None:
    fake = slurm("12|RUNNING|None|node[1-2]\n13|PENDING|Dependency|\n")
    running, waiting = client.jobs(CLUSTER, name="demo.1")
    assert "--name=demo.1" in fake.command
    assert not any(word.startswith("--user") for word in fake.command), "a colleague sees the queue of a run that is not his"
    assert (str(running), str(waiting)) == ("RUNNING on node[1-2]", "PENDING (Dependency)")


def test_a_forgotten_job_is_no_job(slurm: Callable[..., Fake]) -> None:
    slurm(stderr="slurm_load_jobs error: Invalid job id specified", returncode=1)
    assert client.jobs(CLUSTER, job_id="7") == []
    assert client.final_state(CLUSTER, "7") == ""


def test_a_silent_controller_is_not_a_forgotten_job(slurm: Callable[..., Fake]) -> None:
    slurm(stderr="slurm_load_jobs error: Unable to contact slurm controller (connect failure)", returncode=1)
    with pytest.raises(SlurmFailed):
        client.jobs(CLUSTER, job_id="7")


def test_lost_nodes_are_the_down_and_the_silent(slurm: Callable[..., Fake]) -> None:
    slurm("node1 mixed\nnode2 down*\nnode3 mixed*\nnode4 draining\n")
    assert client.lost_nodes(CLUSTER, ["node1", "node2", "node3", "node4"]) == ["node2", "node3"]
    slurm(returncode=1)
    assert client.lost_nodes(CLUSTER, ["node1"]) == []


def test_switches_as_slurm_says_them(slurm: Callable[..., Fake], repository: Path) -> None:
    fake = slurm((repository / "tests/topology/recorded/slurm/tree.txt").read_text())
    assert client.fabric(CLUSTER).leaf("node17") == "leaf3" and fake.command == ("scontrol", "show", "topology")
    slurm("No topology information available\n")
    assert client.fabric(CLUSTER) == Fabric()
    slurm(stderr="Unable to contact slurm controller (connect failure)", returncode=1)
    assert client.fabric(CLUSTER) == Fabric(), "a job must not fail for want of a picture of its switches"


@pytest.mark.parametrize(("said", "version"), [("slurm-wlm 22.05.8\n", (22, 5, 8)), ("slurm 25.05.0-0rc1\n", (25, 5, 0)), ("", ())])
def test_the_version(slurm: Callable[..., Fake], said: str, version: tuple[int, ...]) -> None:
    slurm(said)
    assert client.version(CLUSTER) == version
    slurm(error=FileNotFoundError())
    assert client.version(CLUSTER) == ()


def test_usable_nodes_are_those_of_the_partition(slurm: Callable[..., Fake]) -> None:
    slurm("node1 debug idle\nnode1 train* idle\nnode2 train* allocated\nnode3 debug idle\nnode4 train* drained\nnode5 train* down*\n")
    assert client.usable(CLUSTER) == ["node1", "node2"], "the default one where none is named"
    fake = slurm("node3 debug mixed\n")
    assert client.usable(replace(CLUSTER, partition="debug")) == ["node3"] and "--partition=debug" in fake.command
    slurm(returncode=1)
    assert client.usable(CLUSTER) == []


def test_no_client_is_the_users_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="cpt devcluster start"):
        client.require(CLUSTER)


def test_a_cluster_that_is_not_running_is_told_at_once(slurm: Callable[..., Fake]) -> None:
    fake = slurm()
    with pytest.raises(UserError, match="cpt devcluster start"):
        client.require(ClusterConfig(name="devcluster", slurm_conf="/nowhere/slurm.conf"))
    assert fake.command == ()
