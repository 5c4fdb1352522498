"""Who is unfit and why: the judge as values, the collecting with threads in place of nodes, and the whole on a real cluster."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.core.artifacts import read_json
from cpt.core.errors import CptError
from cpt.core.paths import RunPaths
from jobs import preflight as verb
from slurm import preflight
from slurm.devcluster import DevCluster
from slurm.node import NodeReport, report_path, request_path

FIT = NodeReport(
    node="node1",
    host="node1",
    token="t",
    gpus=["H100"] * 8,
    clock_skew=0.0,
    free_bytes=10**12,
    versions={"torch": "2.13.0"},
    attention="torch SDPA, fused",
    boot="b",
    uptime=1.0,
    seconds=0.1,
)


def reports(count: int, **changed: dict[str, object]) -> dict[str, NodeReport]:
    """node1 to node<count>, all fit but for what is said of some."""
    return {f"node{i}": dataclasses.replace(FIT, node=f"node{i}", **changed.get(f"node{i}", {})) for i in range(1, count + 1)}  # type: ignore[arg-type]


def test_all_fit() -> None:
    found = reports(60)
    assert preflight.judge(found, list(found)) == {}


def test_problems_silence_and_odd_versions() -> None:
    found = reports(6, node2={"problems": ["clock is 93 s ahead", "7 of 8 GPUs"]}, node4={"versions": {"torch": "2.12.0"}}, node5={"versions": {}})
    found.pop("node6")
    assert preflight.judge(found, [f"node{i}" for i in range(1, 7)]) == {
        "node2": "clock is 93 s ahead; 7 of 8 GPUs",
        "node4": "torch is 2.12.0, elsewhere 2.13.0",
        "node5": "torch is none, elsewhere 2.13.0",
        "node6": "did not report",
    }


def test_of_two_halves_the_first_is_right() -> None:
    found = reports(2, node2={"versions": {"torch": "2.14.0"}})
    assert list(preflight.judge(found, ["node1", "node2"])) == ["node2"]


def test_equal_nodes_are_one_row() -> None:
    found = reports(60, node7={"problems": ["clock is 93 s ahead"]}, node9={"problems": ["clock is 93 s ahead"]})
    nodes = [f"node{i}" for i in range(1, 62)]
    findings = preflight.Findings(nodes=nodes, reports=found, unfit=preflight.judge(found, nodes))
    rows = preflight.rows(findings)
    assert [(row[0], row[-1]) for row in rows] == [
        ("node[1-6,8,10-60]", "fit"),
        ("node[7,9]", "clock is 93 s ahead"),
        ("node61", "did not report"),
    ]
    assert rows[0][1] == "8 x H100"
    assert preflight.summary(findings) == "58 nodes fit; node[7,9]: clock is 93 s ahead; node61: did not report"


@pytest.fixture(autouse=True)
def local_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports here are visible at once."""
    monkeypatch.setattr(preflight, "_LAG", 0.3)


def answering(run: RunPaths, nodes: list[str], then: str = "") -> list[str]:
    """A command that reports for these nodes, as their own halves would, then does what is said."""
    code = f"""
import dataclasses, sys, time
from cpt.core.artifacts import read_json
from cpt.core.paths import RunPaths
from pathlib import Path
from slurm.node import NodeReport, report_path, request_path
attempt = RunPaths(Path({str(run.root)!r})).attempt(2)
token = read_json(request_path(attempt))["token"]
for node in {nodes!r}:
    NodeReport.load(Path({str(run.root / "fit.json")!r}))
    dataclasses.replace(NodeReport.load(Path({str(run.root / "fit.json")!r})), node=node, token=token).save(report_path(attempt, node))
{then}
"""
    FIT.save(run.root / "fit.json")
    return [sys.executable, "-c", code]


def ask(tmp_path: Path, command: list[str], nodes: list[str], seconds: float = 60.0) -> dict[str, str]:
    config = compose_config(["experiment=demo", f"slurm.preflight_seconds={seconds}"])
    return preflight.examine(RunPaths(tmp_path), config, command, 2, nodes, subprocess.Popen)


def test_it_returns_as_soon_as_all_have_reported(tmp_path: Path) -> None:
    started = time.monotonic()
    assert ask(tmp_path, answering(RunPaths(tmp_path), ["node1", "node2"]), ["node1", "node2"]) == {}
    assert time.monotonic() - started < 30, "and not after preflight_seconds"


def test_a_node_that_hangs_is_named_and_not_waited_for(tmp_path: Path) -> None:
    command = answering(RunPaths(tmp_path), ["node1"], "time.sleep(600)")
    assert ask(tmp_path, command, ["node1", "node2"], seconds=3.0) == {"node2": "did not report"}


def test_who_is_silent_when_the_step_has_ended_is_named_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    assert list(ask(tmp_path, answering(RunPaths(tmp_path), ["node1"]), ["node1", "node2"])) == ["node2"]
    assert time.monotonic() - started < 30


def test_who_was_still_looking_when_a_dead_node_ended_the_step_is_asked_again(tmp_path: Path) -> None:
    """Alone, so that the dead one takes nobody with it."""
    run, asked = RunPaths(tmp_path), []

    def start(argv: list[str]) -> subprocess.Popen[bytes]:
        (nodes,) = [word.removeprefix("--nodelist=").split(",") for word in argv if word.startswith("--nodelist=")]
        asked.append(nodes)
        return subprocess.Popen(answering(run, ["node1"] if len(nodes) > 1 else [node for node in nodes if node != "node2"]))

    config = compose_config(["experiment=demo"])
    assert preflight.examine(run, config, ["srun", "x"], 2, ["node1", "node2", "node3"], start) == {"node2": "did not report"}
    assert asked == [["node1", "node2", "node3"], ["node2"], ["node3"]]


def test_a_report_of_an_earlier_preflight_does_not_count(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    dataclasses.replace(FIT, node="node2", token="old").save(report_path(run.attempt(2), "node2"))
    assert list(ask(tmp_path, answering(run, ["node1"]), ["node1", "node2"])) == ["node2"]


def test_when_nobody_reports_the_question_is_broken_and_no_node_is_blamed(tmp_path: Path) -> None:
    with pytest.raises(CptError, match=r"none of 2 nodes reported.*slurm\.preflight=false"):
        ask(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"], ["node1", "node2"])


def test_nodes_are_put_right_behind_srun() -> None:
    assert preflight.on(["srun", "--overlap", "x"], ["a", "b"]) == ["srun", "--nodes=2", "--ntasks=2", "--nodelist=a,b", "--overlap", "x"]


def test_nodes_are_asked_for_room_for_two_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunPaths(tmp_path)
    run.plan.write_text("{}")
    monkeypatch.setattr(preflight.PlanRecord, "load", lambda path: type("Plan", (), {"checkpoint_bytes": 7}))
    ask(tmp_path, answering(run, ["node1"]), ["node1"])
    assert read_json(request_path(run.attempt(2)))["free_bytes"] == 14


LOCAL = ["experiment=demo", "cluster=local", "slurm.nodes=1", "slurm.spare_nodes=0", "slurm.tasks_per_node=1", "parallel=single"]


def test_the_verb_without_a_scheduler_asks_this_machine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verb.main([*LOCAL, f"run_root={tmp_path}"]) == 0
    assert "1 nodes fit" in capfd.readouterr().out
    assert verb.main([*LOCAL, f"run_root={tmp_path}", "cluster.health_check=[sh,-c,'echo link is down; exit 1']"]) == 1
    assert "sh: link is down" in capfd.readouterr().out
    assert list(tmp_path.iterdir()) == [], "no attempt was counted, nothing is left"


@pytest.mark.slurm
def test_the_verb_names_the_sick_node_of_a_real_cluster(cluster: DevCluster, on_cluster: list[str], tmp_path: Path) -> None:
    """From the login node, so in a short job of its own."""
    sick = tmp_path / "check"
    sick.write_text('#!/bin/sh\n[ "$SLURMD_NODENAME" != node2 ] || { echo "link 3 is down"; exit 1; }\n')
    sick.chmod(0o755)
    shape = ["slurm.nodes=2", "slurm.spare_nodes=1", f"run_root={tmp_path}", f"cluster.health_check=[{sick}]", "+slurm.extra.nodelist='node[1-3]'"]
    command = [sys.executable, "-m", "jobs.cli", "preflight", *on_cluster, *shape]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "2 nodes fit; node2: check: link 3 is down" in done.stdout
    assert "node[1,3]" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["check"]
