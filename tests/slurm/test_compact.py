"""What a launch asks SLURM for, so that a run's nodes hang on few switches."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.topology import Fabric, from_scontrol
from slurm import client, submit

TREE = "SwitchName=leaf1 Nodes=n[1-8]\nSwitchName=leaf2 Nodes=n[9-16]\nSwitchName=leaf3 Nodes=n[17-24]\nSwitchName=spine Switches=leaf[1-3]\n"


def asked(*overrides: str) -> dict[str, str]:
    found = submit.compact(composed(*overrides))
    return found.options if found else {}


def composed(*overrides: str) -> RunConfig:
    layout = ["model=tiny", "parallel.pipeline_parallel_size=2", "slurm.nodes=10", "train.global_batch_size=20"]
    return compose_config(["train.train_tokens=81920", *layout, *overrides])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, TREE)


def say(monkeypatch: pytest.MonkeyPatch, topology: str, version: tuple[int, ...] = (22, 5, 8), usable: list[str] | None = None) -> None:
    monkeypatch.setattr(client, "fabric", lambda _: from_scontrol(topology) or Fabric())
    monkeypatch.setattr(client, "version", lambda _: version)
    monkeypatch.setattr(client, "usable", lambda _: usable or [])


def test_few_leaves_of_a_tree(site: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked() == {"switches": "2@1:00:00"}
    assert asked("slurm.nodes=1", "slurm.tasks_per_node=10") == {}, "one node is always on one switch"
    assert asked("slurm.spare_nodes=8") == {}, "all three leaves are needed"
    say(monkeypatch, TREE, usable=[f"n{n}" for n in range(9, 25)])
    assert asked() == {}, "this partition has only two leaves"
    say(monkeypatch, TREE, usable=[f"n{n}" for n in range(1, 25)])
    assert asked("slurm.spare_nodes=5") == {"switches": "2@1:00:00"} and asked("slurm.spare_nodes=5", "slurm.exclude=[n1,n9,n17]") == {}


@pytest.mark.parametrize(
    "override", ["slurm.topology=false", "cluster.scheduler=local", "slurm.nodes=40", "+slurm.extra.nodelist=n1", "+slurm.extra.reservation=mine"]
)
def test_nothing_is_asked(site: None, override: str) -> None:
    assert asked(override) == {}


def test_without_a_topology_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "")
    assert submit.compact(composed()) is None


def test_segments_of_blocks(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of blocks SLURM gives the fewest nodes of a range, so spares are asked for by number."""
    blocks = (repository / "tests/topology/recorded/slurm/block_2411.txt").read_text()
    say(monkeypatch, blocks, (24, 11, 0))
    assert asked() == {"segment": "2"}, "a pipeline's two nodes"
    assert asked("slurm.spare_nodes=2") == {"nodes": "12", "segment": "2"}
    say(monkeypatch, blocks, (23, 11, 0))
    assert (asked(), asked("slurm.spare_nodes=2")) == ({}, {"nodes": "12"})
