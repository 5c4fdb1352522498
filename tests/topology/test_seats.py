"""Who sits where, attempt after attempt, on SLURM's own words about a cluster."""

from __future__ import annotations

import random
from pathlib import Path

from cpt.config.compose import compose_config
from cpt.topology.fabric import Fabric, Kind, from_scontrol
from cpt.topology.layout import Group
from cpt.topology.seats import Seats, seats

RECORDED = Path(__file__).parent / "recorded/slurm"
E_LLAMA = compose_config(["experiment=ellama_70b", "slurm.spare_nodes=2"])


def tree() -> Fabric:
    found = from_scontrol((RECORDED / "tree.txt").read_text())
    assert found
    return found


def allocation() -> list[str]:
    """62 of 64 nodes, as SLURM lists them."""
    return [f"node{n}" for n in range(1, 65) if n not in (30, 64)]


def test_ranks_of_a_run_on_a_recorded_tree(tmp_path: Path) -> None:
    found = seats(allocation(), tree(), E_LLAMA)
    assert found and found.ordered
    assert sorted([*found.nodes, *found.spares]) == sorted(allocation()) and len(found.nodes) == 60
    assert found.after.kinds[Group.pp].mean < found.before.kinds[Group.pp].mean == 3.0
    assert found.after.spine_bytes < found.before.spine_bytes
    assert found.line.startswith("ranks ordered by switches: pipeline neighbors 3.00 -> 1.") and found.line.endswith(" TiB over the spine a step")
    found.save(tmp_path / "seats.json")
    assert Seats.load(tmp_path / "seats.json") == found


def test_whoever_has_a_node_keeps_it() -> None:
    first = seats(allocation(), tree(), E_LLAMA)
    assert first
    lost = random.Random(5).sample(first.nodes, 2)
    second = seats([node for node in allocation() if node not in lost], tree(), E_LLAMA, first.nodes)
    assert second and second.spares == ()
    assert [index for index, (before, after) in enumerate(zip(first.nodes, second.nodes, strict=True)) if before != after] == sorted(
        map(first.nodes.index, lost)
    )
    assert second.after.kinds[Group.pp].mean < second.before.kinds[Group.pp].mean, "though a spare is not where the lost node was"


def test_the_best_order_may_be_slurms() -> None:
    config = compose_config(["train.train_tokens=81920", "model=tiny", "slurm.nodes=4", "train.global_batch_size=4"])
    found = seats(["a1", "a2", "b1", "b2"], Fabric(kind=Kind.tree, paths={name: ("spine", name[0]) for name in ("a1", "a2", "b1", "b2")}), config)
    assert found and not found.ordered and found.line.startswith("SLURM's own order of ranks is as good as any: ring neighbors 2.00 switches, ")


def test_one_switch_needs_no_order() -> None:
    assert seats([f"node{n}" for n in range(1, 9)], tree(), compose_config(["train.train_tokens=81920"])) is None
    assert seats(["a", "b"], Fabric(), compose_config(["train.train_tokens=81920"])) is None
