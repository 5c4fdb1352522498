"""SLURM's word about switches and blocks, the hops that follow from it, and what to ask SLURM for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.core.errors import UserError
from cpt.topology.fabric import Fabric, Kind, from_addresses, from_scontrol, switches_between
from cpt.topology.hints import hint

RECORDED = Path(__file__).parent / "recorded/slurm"


def recorded(name: str) -> Fabric:
    found = from_scontrol((RECORDED / name).read_text())
    assert found is not None
    return found


def test_a_tree() -> None:
    fabric = recorded("tree.txt")
    assert (fabric.kind, len(fabric.paths), fabric.path("node17")) == (Kind.tree, 64, ("spine", "leaf3"))
    assert [len(found) for found in fabric.leaves().values()] == [8] * 8
    assert [path[-1] for path in fabric.leaves()] == [f"leaf{n}" for n in range(1, 9)]
    assert fabric.leaves(["node64", "node9", "node10", "stranger"]) == {
        ("spine", "leaf2"): ["node9", "node10"],
        ("spine", "leaf8"): ["node64"],
        (): ["stranger"],
    }


def test_three_levels() -> None:
    fabric = recorded("tree_three.txt")
    assert fabric.path("lrdn0013") == ("isw-L3", "isw-L2-CELLG1", "isw10100")
    passed = [switches_between(fabric.path("lrdn0001"), fabric.path(other)) for other in ("lrdn0002", "lrdn0009", "lrdn0181")]
    assert passed == [1, 3, 5]


def test_blocks() -> None:
    fabric = recorded("block_2311.txt")
    assert (fabric.kind, fabric.block_size, fabric.path("gb019")) == (Kind.block, 0, ("rack02",))
    newer = recorded("block_2411.txt")
    assert (newer.block_size, newer.path("gb019"), newer.path("gb055")) == (18, ("rack[01-02]", "rack02"), ("rack[03-04]", "rack04"))
    assert [switches_between(newer.path("gb001"), newer.path(other)) for other in ("gb002", "gb019", "gb072")] == [1, 3, 5]
    assert recorded("block_addresses.txt").leaf("10.140.93.120") == "gb300_b1"


@pytest.mark.parametrize("text", ["", "No topology information available\n", "slurm_load_topo error: Requested operation not supported\n"])
def test_no_topology_is_a_fact(text: str) -> None:
    assert from_scontrol(text) is None


def test_switches_that_are_no_tree() -> None:
    with pytest.raises(UserError, match="lies below itself"):
        from_scontrol("SwitchName=a Level=0 Nodes=n1\nSwitchName=b Level=1 Switches=a,c\nSwitchName=c Level=1 Switches=b\n")
    with pytest.raises(UserError, match="is not a list of names"):
        from_scontrol("SwitchName=a Level=0 Nodes=n[1-\n")


def test_a_leaf_below_two_spines_is_one_hop_from_either() -> None:
    fabric = from_scontrol("SwitchName=l1 Nodes=a,b\nSwitchName=l2 Nodes=c\nSwitchName=s1 Switches=l[1-2]\nSwitchName=s2 Switches=l[1-2]\n")
    assert fabric is not None
    assert switches_between(fabric.path("a"), fabric.path("c")) == 3


def test_addresses() -> None:
    pattern = "switch.switch.node"
    fabric = from_addresses({"node17": ("spine.leaf3.node17", pattern), "node1.site.org": ("spine.leaf1.node1.site.org", pattern)})
    assert fabric == Fabric(kind=Kind.tree, paths={"node17": ("spine", "leaf3"), "node1.site.org": ("spine", "leaf1")})
    blocks = from_addresses({"10.0.0.1": ("b8.10.0.0.1", "block.node")})
    assert blocks == Fabric(kind=Kind.block, paths={"10.0.0.1": ("b8",)})
    assert from_addresses({"tux1": ("tux1", "node")}) is None  # topology/none
    with pytest.raises(UserError, match="do not fit together"):
        from_addresses({"node1": ("leaf1", pattern)})


def test_a_node_that_nobody_knows_is_far_from_all() -> None:
    assert switches_between((), ("spine", "leaf1")) == 3
    assert switches_between((), ()) == 1  # no topology at all: one switch


@pytest.mark.parametrize(("nodes", "options"), [(8, {"switches": "1@2:00:00"}), (9, {"switches": "2@2:00:00"}), (56, {"switches": "7@2:00:00"}), (60, {})])
def test_fewest_switches(nodes: int, options: dict[str, str]) -> None:
    found = hint(recorded("tree.txt"), nodes, (22, 5, 8), wait="2:00:00")
    assert found.options == options
    assert found.why


def test_switches_of_what_the_job_may_use() -> None:
    usable = [f"node{n}" for n in (*range(1, 7), *range(9, 17), *range(17, 19))]  # 6, 8 and 2
    assert hint(recorded("tree.txt"), 14, (23, 2), usable=usable).options == {"switches": "2@1:00:00"}


@pytest.mark.parametrize(
    ("nodes", "version", "pipeline", "options"),
    [
        (60, (24, 5, 0), 4, {"segment": "4"}),
        (60, (23, 11, 4), 4, {}),  # blocks, but no --segment yet
        (60, (24, 5, 0), 1, {"segment": "15"}),
        (62, (24, 5, 0), 4, {"segment": "2"}),  # spares that do not divide
        (60, (24, 5, 0), 20, {"segment": "15"}),  # a pipeline larger than a block,
        (60, (25, 5, 0), 20, {"segment": "20"}),  # which newer ones allow
        (61, (24, 5, 0), 4, {}),
    ],
)
def test_segments(nodes: int, version: tuple[int, ...], pipeline: int, options: dict[str, str]) -> None:
    assert hint(recorded("block_2411.txt"), nodes, version, pipeline).options == options


def test_what_cannot_be_hinted() -> None:
    assert hint(Fabric(), 60, (24, 5)).options == {}
    with pytest.raises(UserError, match="the fabric has 64"):
        hint(recorded("tree.txt"), 65, (22, 5))
    with pytest.raises(UserError, match="is not a time"):
        hint(recorded("tree.txt"), 8, (22, 5), wait="soon")
