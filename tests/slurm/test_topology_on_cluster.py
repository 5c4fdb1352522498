"""Ranks in the order of the switches, on a real SLURM that knows of three leaves whose nodes' names say nothing about them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cpt.config.compose import compose_config
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_text
from cpt.core.heartbeat import read_beats
from cpt.core.paths import RunPaths
from cpt.topology import Seats
from cpt.topology.layout import Group
from slurm import client, submit
from slurm.devcluster import DevCluster, can_run
from slurm.script import Origin, render
from tests.slurm.conftest import COMPOSING, SMALL, STAND_IN, Submitted, behave, wait_for

pytestmark = pytest.mark.slurm

LEAF = 3
"""node1 node4 node7 hang on the first switch, node2 node5 node8 on the second, node3 node6 node9 on the third."""

PIPELINES = ["model=tiny", "parallel=tp2_pp2", "slurm.nodes=4", "slurm.tasks_per_node=2", "slurm.spare_nodes=1", "train.global_batch_size=80"]
"""PP2 x DP2: the first and the third node in rank order are a pipeline, and the second and the fourth."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    possible, why = can_run()
    if not possible:
        pytest.skip(why)
    cluster = DevCluster(tmp_path_factory.mktemp("tree"))
    cluster.start(9, leaf=LEAF)
    yield cluster
    cluster.stop()


def start(tree: DevCluster, root: Path, *overrides: str, **how: Any) -> Submitted:
    with COMPOSING:
        config = compose_config([*SMALL, f"cluster.slurm_conf={tree.files.slurm_conf}", *PIPELINES, *overrides])
    run = RunPaths(root / "100% a run")
    write_text(run.config, to_yaml(config))
    behave(run, **({"steps": 60, "save_every": 5, "seconds": 0.15} | how))
    write_text(run.script, render(config, run, Origin(), STAND_IN, submit.compact(config)))
    return Submitted(config, run, client.submit(config.cluster, run.script))


def where(job: Submitted, attempt: int) -> list[str]:
    """Node of each rank, by what ranks themselves say."""
    return [beat.host for beat in read_beats(job.run.attempt(attempt))]


def twice(*nodes: str) -> list[str]:
    return [node for node in nodes for _ in range(2)]


def test_slurm_is_told_of_switches_and_tells_them(tree: DevCluster) -> None:
    config = compose_config([*SMALL, f"cluster.slurm_conf={tree.files.slurm_conf}"])
    fabric = client.fabric(config.cluster)
    assert list(fabric.leaves().values()) == tree.layout.leaves()
    assert client.usable(config.cluster) == tree.layout.names and client.version(config.cluster)[0] >= 22


def test_ranks_sit_where_the_order_says_and_stay_when_a_node_is_lost(tree: DevCluster, tmp_path: Path) -> None:
    """On node1 to node5: SLURM's own order has both pipelines over the spine."""
    job = start(tree, tmp_path, "+slurm.extra.nodelist='node[1-5]'")
    wait_for(lambda: len(job.rows(0)) >= 7, f"the first checkpoint: {job.log()}")
    before = Seats.load(job.run.attempt(0).seats)
    assert (before.nodes, before.spares) == (("node1", "node2", "node4", "node5"), ("node3",))
    tree.kill("node5")
    assert job.ended() == "COMPLETED", job.log()
    after = Seats.load(job.run.attempt(1).seats)
    assert after.nodes == ("node1", "node2", "node4", "node3"), "three keep their places, the spare takes the fourth"
    for attempt, seats in enumerate((before, after)):
        assert where(job, attempt) == twice(*seats.nodes), "each rank itself says so"
        logs = [job.run.attempt(attempt).log(rank).read_text() for rank in range(8)]
        assert all(f"rank {rank} of 8 on {seats.nodes[rank // 2]} via node1:" in log for rank, log in enumerate(logs)), "all meet at rank 0's node"
    assert (before.before.kinds[Group.pp].mean, before.after.kinds[Group.pp].mean, after.after.kinds[Group.pp].mean) == (3.0, 1.0, 2.0)
    assert "pipeline neighbors 3.00 -> 1.00 switches" in job.log() and "asked to be" not in job.log()
    tree.up("node5")


def test_a_crash_ends_all_ranks_and_they_come_back_to_their_places(tree: DevCluster, tmp_path: Path) -> None:
    """The head of the order is not the batch host: node1 is lost to it as a spare."""
    wait_for(lambda: len(tree.idle()) == 9, "all nodes")
    fault = {"rank": 5, "step": 8, "kind": "exit", "attempts": 1}
    job = start(tree, tmp_path, "+slurm.extra.nodelist='node[1-2,5-6,9]'", steps=20, fault=fault)
    assert job.ended() == "COMPLETED", job.log()
    first, second = (Seats.load(job.run.attempt(attempt).seats) for attempt in (0, 1))
    assert first.nodes == second.nodes and first.spares == ("node1",)
    assert where(job, 0) == where(job, 1) == twice(*first.nodes)


def test_slurm_gives_few_switches(tree: DevCluster, tmp_path: Path) -> None:
    wait_for(lambda: len(tree.idle()) == 9, "all nodes")
    job = start(tree, tmp_path, steps=5)
    assert "#SBATCH --switches=2@1:00:00" in job.run.script.read_text()
    assert job.ended() == "COMPLETED", job.log()
    seats = Seats.load(job.run.attempt(0).seats)
    assert len(seats.fabric.leaves()) == 2 and where(job, 0) == twice(*seats.nodes)


def test_without_it_all_is_as_srun_does_it(tree: DevCluster, tmp_path: Path) -> None:
    wait_for(lambda: len(tree.idle()) == 9, "all nodes")
    job = start(tree, tmp_path, "slurm.topology=false", "+slurm.extra.nodelist='node[1-5]'", steps=5)
    assert job.ended() == "COMPLETED", job.log()
    assert where(job, 0) == twice("node1", "node2", "node3", "node4")
    assert "--switches" not in job.run.script.read_text() and not job.run.attempt(0).seats.exists()
