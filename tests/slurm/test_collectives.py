"""Who is slow and what to type: as text, and on a real cluster where one node's cable is slow."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.core.errors import CptError
from cpt.core.paths import RunPaths
from jobs import preflight_bandwidth as bandwidth
from slurm import collectives
from slurm.collectives import CollectivesReport, CollectivesRequest, Culprit, GroupReport, report_path
from slurm.devcluster import DevCluster

NODES = [f"node{index}" for index in range(9, 17)]
"""Of the session's cluster."""


def group(number: int, *nodes: str, speed: float = 40e9, slow: bool = False) -> GroupReport:
    return GroupReport(round=number, nodes=list(nodes), all_reduce=speed, all_gather=speed / 2, expected=45e9, slow=slow)


def report(groups: list[GroupReport], *culprits: Culprit, silent: tuple[str, ...] = (), said: str = "") -> CollectivesReport:
    return CollectivesReport(token="t", groups=groups, culprits=list(culprits), silent=list(silent), said=said, seconds=12.3)


def culprit(kind: str, *nodes: str, other: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> Culprit:
    return Culprit(kind=kind, nodes=list(nodes), other=list(other), bandwidth=4e9, expected=45e9, exclude=list(exclude))


SLOW = report(
    [
        group(0, "node1", "node2", "node3", "node4", speed=4e9, slow=True),
        group(1, "node1", "node2"),
        group(1, "node3", "node4", speed=4e9, slow=True),
        group(2, "node1", "node3", speed=4e9, slow=True),
        group(2, "node2", "node4", speed=41e9),
        group(3, "node1", "node2", "node4"),
    ],
    culprit("node", "node3", exclude=("node3",)),
)


def test_the_line_to_type_keeps_what_was_left_out_before() -> None:
    config = compose_config(["experiment=demo", "slurm.exclude=[node7]"])
    assert list(collectives.lines(SLOW, config)) == [
        "node3 is slow to every other node: 4 GB/s where 45 GB/s are due",
        "found in 4 rounds, 12 s; without node3 40 GB/s between the other 3",
        "leave out: slurm.exclude=[node7,node3]",
    ]


def test_fast_groups_of_a_round_are_one_row_and_a_slow_one_its_own() -> None:
    rows = collectives.rows(report([group(0, "node1", "node2"), group(0, "node3", "node4", speed=2e6, slow=True), group(0, "node5", "node6", speed=39e9)]))
    assert rows == [
        ("1", "2 groups of 2", "39 GB/s", "19.5 GB/s", "45 GB/s", ""),
        ("1", "node[3-4]", "2 MB/s", "1 MB/s", "45 GB/s", "slow"),
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (report([group(0, "node1", "node2")]), "nobody is slow: 40 GB/s in node[1-2], 1 round, 12 s"),
        (report([]), "one rank has nobody to talk to"),
        (report([group(0, "node1", "node2")], culprit("joint", "node1", "node2", other=("node3", "node4"))), "what joins node[1-2] with node[3-4] is slow"),
        (
            report([group(0, "node1", "node2")], culprit("link", "node1", "node2", exclude=("node2",))),
            "node1 and node2 are slow with each other, fast with others",
        ),
        (report([], silent=("node5",), said="node5: no answer in 65 s"), "leave out: slurm.exclude=[node5]"),
    ],
)
def test_every_ending_has_its_sentence(found: CollectivesReport, said: str) -> None:
    assert said in "\n".join(collectives.lines(found, compose_config(["experiment=demo"])))


def test_on_gpus_what_the_plan_counts_on_is_due_and_on_cpus_what_peers_reach() -> None:
    config = compose_config(["experiment=ellama_70b"])
    inside, between = bandwidth.expected(config)
    assert inside == pytest.approx(0.82 * 450e9)
    assert between == pytest.approx(min(0.9 * 8 * 50e9, inside))
    assert bandwidth.expected(compose_config(["experiment=demo"])) == (0.0, 0.0)


def test_a_step_that_ends_without_a_report_is_no_verdict_about_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "_LAG", 0.2)
    attempt = RunPaths(tmp_path).attempt(0)
    attempt.root.mkdir(parents=True)
    attempt.log(1).write_text("Traceback\nModuleNotFoundError: No module named 'torch'\n")
    config = compose_config(["experiment=demo"])
    request = CollectivesRequest(**collectives.ask(config, ["node1", "node2"], (0.0, 0.0)).as_dict() | {"ranks_per_node": 1})
    with pytest.raises(CptError, match=r"ended with 1\nrank_1: ModuleNotFoundError: No module named 'torch'"):
        collectives._wait(attempt, request, subprocess.Popen(["false"]), 60.0)
    assert not report_path(attempt).exists()


@pytest.fixture
def slow_cable(cluster: DevCluster) -> Iterator[str]:
    if not cluster.layout.isolated:
        pytest.skip("nodes share one network here: no cable can be slow")
    cluster.slow("node11", rate="200mbit")
    yield "node11"
    cluster.heal("node11")


def measure(cluster: DevCluster, on_cluster: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    shape = ["slurm.nodes=8", "slurm.tasks_per_node=1", "slurm.spare_nodes=0", "train.global_batch_size=16", f"+slurm.extra.nodelist='{','.join(NODES)}'"]
    command = [sys.executable, "-m", "jobs.cli", "preflight", "--collectives", *on_cluster, *shape, f"run_root={root}"]
    return subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.slurm
def test_a_node_with_a_slow_cable_is_named_on_a_real_cluster(cluster: DevCluster, on_cluster: list[str], slow_cable: str, tmp_path: Path) -> None:
    done = measure(cluster, on_cluster, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.findall(r"^.* is slow .*$|^.* are slow .*$|^.*: slow.*$", done.stdout, re.MULTILINE) == re.findall(
        rf"^{slow_cable} is slow to every other node: .*$", done.stdout, re.MULTILINE
    )
    assert f"leave out: slurm.exclude=[{slow_cable}]" in done.stdout
    rounds = int(re.findall(r"found in (\d+) rounds", done.stdout)[0])
    assert rounds <= 8
    assert list(tmp_path.iterdir()) == [], "nothing is left"


@pytest.mark.slurm
@pytest.mark.slow
def test_of_equal_cables_none_is_named(cluster: DevCluster, on_cluster: list[str], tmp_path: Path) -> None:
    done = measure(cluster, on_cluster, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nobody is slow" in done.stdout and "node[9-16]" in done.stdout
