"""The development cluster itself."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpt.core.errors import UserError
from jobs import devcluster as verb
from slurm import process
from slurm.devcluster import DevCluster, accounting
from slurm.devcluster import cluster as cluster_module
from slurm.devcluster.layout import ClusterFiles, ClusterLayout, hosts
from slurm.devcluster.rights import can_run
from slurm.devcluster.settings import gres_conf, health, prolog, slurm_conf


def test_two_clusters_share_no_name_address_or_port() -> None:
    here, there = (ClusterLayout(slot=slot, nodes=3, isolated=True) for slot in (0, 1))
    for name in ("bridge", "network", "gateway", "controller_port", "accounting_port"):
        assert getattr(here, name) != getattr(there, name)
    assert here.namespace(1) != there.namespace(1)
    plain = [ClusterLayout(slot=slot, nodes=99, isolated=False) for slot in range(20)]
    ports = [layout.port(index) for layout in plain for index in range(1, 100)]
    ports += [port for layout in plain for port in (layout.controller_port, layout.accounting_port)]
    assert len(set(ports)) == len(ports)


def test_interface_names_fit_the_kernels_fifteen_letters() -> None:
    assert max(len(ClusterLayout(slot=19, nodes=99, isolated=True).namespace(99)), len(ClusterLayout(slot=19, nodes=1, isolated=True).bridge)) <= 15


def test_addresses_of_many_nodes_differ() -> None:
    layout = ClusterLayout(slot=0, nodes=600, isolated=True)
    assert len({layout.address(index) for index in range(1, 601)}) == 600
    assert layout.gateway not in hosts(layout).split("login")[1]


@pytest.mark.parametrize("isolated", [True, False])
def test_slurm_conf_names_every_node_and_only_its_own_folder(isolated: bool) -> None:
    text = slurm_conf(ClusterLayout(slot=2, nodes=3, isolated=isolated), ClusterFiles(Path("/tmp/c")))
    assert [f"NodeName=node{index} " in text for index in (1, 2, 3)] == [True] * 3
    assert "cred_expire=5" in text and "UnkillableStepTimeout=180" in text and "/tmp/c/state" in text
    assert ("login(10.79.0.1)" in text) == isolated
    assert "AccountingStorage" not in text


def test_a_large_cluster_waits_longer_for_a_node() -> None:
    small, large = (slurm_conf(ClusterLayout(slot=0, nodes=nodes, isolated=True), ClusterFiles(Path("/tmp/c"))) for nodes in (4, 62))
    assert re.findall(r"^(?:SlurmdTimeout|MessageTimeout|TCPTimeout)=(\d+)$", small, re.MULTILINE) == ["5", "5", "1"]
    assert re.findall(r"^(?:SlurmdTimeout|MessageTimeout|TCPTimeout)=(\d+)$", large, re.MULTILINE) == ["10", "10", "2"]


def test_every_node_has_eight_gpus_that_are_not_there() -> None:
    layout, files = ClusterLayout(slot=0, nodes=62, isolated=True), ClusterFiles(Path("/tmp/c"))
    assert slurm_conf(layout, files).count(" Gres=gpu:8 ") == 62
    assert gres_conf(layout, files) == "NodeName=node[1-62] Name=gpu File=/tmp/c/dev/gpu[0-7]\n"


def test_only_the_flagged_node_fails_its_checks(tmp_path: Path) -> None:
    files = ClusterFiles(tmp_path / "a folder")
    files.bad("node2", "prolog").parent.mkdir(parents=True)
    files.bad("node2", "prolog").touch()
    files.bad("node1", "health").touch()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text('#!/bin/sh\necho "$SLURM_CONF $*"\n')
    scontrol.chmod(0o755)

    def run(script: str, node: str) -> tuple[int, str]:
        ended = subprocess.run(["sh", "-c", script], env={"SLURMD_NODENAME": node}, capture_output=True, text=True, check=False)
        return ended.returncode, ended.stdout.strip()

    assert [run(prolog(files), node)[0] for node in ("node1", "node2", "node22")] == [0, 1, 0]
    check = health(files, str(scontrol.parent))
    assert run(check, "node2") == (0, "")
    assert run(check, "node1") == (0, f"{files.slurm_conf} update nodename=node1 state=drain reason=health check failed")


def test_a_reused_pid_is_not_our_daemon(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    record = tmp_path / "sleep.json"
    try:
        process.remember(child.pid, record)
        assert process.is_running(record)
        process.ProcessRecord(pid=child.pid, started=1).save(record)
        assert not process.is_running(record)
        process.end(record, signal.SIGKILL)
        assert child.poll() is None, "somebody else's process was left alone"
    finally:
        child.kill()
        child.wait()


def test_ending_a_daemon_that_ignores_the_signal(tmp_path: Path) -> None:
    record = tmp_path / "stubborn.json"
    process.spawn(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], log=tmp_path / "log", record=record, environment={"PATH": "/usr/bin:/bin"})
    process.end(record, signal.SIGTERM, timeout=0.5)
    assert not record.exists()


def test_without_the_right_one_clear_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    possible, why = can_run()
    assert not possible and "root" in why and "\n" not in why
    with pytest.raises(UserError, match="cluster=local"):
        DevCluster(tmp_path / "c").start()
    assert not (tmp_path / "c").exists()


def test_commands_need_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cpt devcluster start"):
        DevCluster(tmp_path).kill("node1")
    DevCluster(tmp_path).stop()
    assert tmp_path.is_dir(), "a folder that is not a cluster is not removed"


@pytest.mark.parametrize("words", [["start", "nodes=0"], ["start", "nodes=100"], ["start", "accounting=maybe"], ["start", "node=3"], ["fly"], []])
def test_the_verb_refuses_what_it_does_not_know(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPT_DEVCLUSTER", str(tmp_path / "c"))
    with pytest.raises(UserError, match="devcluster"):
        verb.main(words)
    assert not (tmp_path / "c").exists()


def test_without_packages_accounting_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package slurmdbd' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(apt.parent), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(accounting, "_slurm_version", lambda: "22.05.8")
    with pytest.raises(UserError, match="Unable to locate package slurmdbd"):
        accounting.packages()
    assert list((tmp_path / "cache" / "cpt" / "accounting").iterdir()) == [], "nothing half fetched is left"


@pytest.mark.slurm
@pytest.mark.parametrize("isolated", [True, False])
def test_stop_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolated: bool) -> None:
    if not isolated:
        monkeypatch.setattr(cluster_module, "can_isolate", lambda: False)
    cluster = DevCluster(tmp_path / "c")
    assert cluster.start(2)
    layout, records = cluster.layout, [process.ProcessRecord.load(path) for path in cluster.root.glob("run/*.json")]
    assert layout.isolated == isolated and len(records) == 4
    assert not cluster.start(2), "already running"
    cluster.kill("node2")
    cluster.up("node2")
    with pytest.raises(UserError, match="node1 or node2"):
        cluster.kill("node9")
    if not isolated:
        with pytest.raises(UserError, match="no cable"):
            cluster.cut("node1")
        cluster.bad("node1")
        submit(cluster, "sleep 60", "--nodelist=node1")
        wait_for(lambda: cluster.status()["node1"].startswith("drain"), "a node without a host name of its own to fail its prolog")
    cluster.stop()
    assert not cluster.root.exists()
    assert not any(process.lives(record) for record in records)
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    if isolated:  # without, a bridge of that name would be another cluster's
        assert layout.bridge not in links and layout.namespace(1) not in links + spaces
    assert cluster_module._port_free(layout.controller_port)
    cluster.stop()


@pytest.mark.slurm
def test_a_start_after_a_crash_of_everything_begins_afresh(tmp_path: Path) -> None:
    cluster = DevCluster(tmp_path / "c")
    cluster.start(1)
    try:
        for name in ("slurmctld", "munged", "node1"):
            process.end(cluster.files.pid(name), signal.SIGKILL)
        assert not cluster.is_running()
        assert cluster.start(1) and cluster.idle() == ["node1"]
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """Four nodes of this file's own: its tests spoil nodes."""
    cluster = DevCluster(tmp_path_factory.mktemp("four"))
    cluster.start(4)
    yield cluster
    cluster.stop()


def tell(cluster: DevCluster, *command: str) -> str:
    done = subprocess.run(command, env=cluster.environment, cwd=cluster.root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def submit(cluster: DevCluster, script: str, *options: str) -> str:
    return tell(cluster, "sbatch", "--parsable", "--output=job-%j.txt", "--open-mode=append", *options, "--wrap", script)


def job(cluster: DevCluster, number: str) -> tuple[str, list[str]]:
    """State, and the nodes it has."""
    state, _, nodes = tell(cluster, "squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T %N").partition(" ")
    return state, tell(cluster, "scontrol", "show", "hostnames", nodes).split() if nodes else []


def wait_for(ready: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    process.wait_until(ready, what=what, timeout=seconds)


def knock(cluster: DevCluster, node: str) -> str:
    """What a peer hears that calls this node's slurmd."""
    index = cluster.layout.names.index(node) + 1
    try:
        socket.create_connection((cluster.layout.address(index), cluster.layout.port(index)), timeout=1).close()
    except OSError as error:
        return type(error).__name__
    return "answers"


@pytest.mark.slurm
def test_a_cut_node_is_unheard_and_lives_on_until_it_is_healed(four: DevCluster) -> None:
    if not four.layout.isolated:
        pytest.skip("no network namespaces here")
    number = submit(four, "hostname > mine; while sleep 0.1; do date +%s.%N > alive; done", "--nodelist=node3")
    wait_for((four.root / "alive").is_file, "the job")
    slurmd = process.ProcessRecord.load(four.files.pid("node3"))
    assert knock(four, "node3") == "answers"
    four.cut("node3")
    assert knock(four, "node3") in ("TimeoutError", "OSError"), "silence or no route; ConnectionRefusedError would be a node that answers"
    assert knock(four, "node2") == "answers"
    before = (four.root / "alive").read_text()
    wait_for(lambda: (four.root / "alive").read_text() not in ("", before), "a sign of life of what runs on the node", 5)
    assert process.lives(slurmd) and (four.root / "mine").read_text().strip() == "node3"
    four.heal("node3")
    wait_for(lambda: knock(four, "node3") == "answers", "the healed node", 10)
    assert job(four, number)[0] == "RUNNING", "SLURM has not noticed so short a cut"
    tell(four, "scancel", number)
    wait_for(lambda: len(four.idle()) == 4, "the end of the job")
    four.kill("node3")
    four.heal("node3")
    assert knock(four, "node3") == "ConnectionRefusedError", "reachable, and nobody there"
    four.up("node3")
    wait_for(lambda: len(four.idle()) == 4, "node3 again")


@pytest.mark.slurm
def test_a_bad_prolog_drains_its_node_and_the_job_goes_elsewhere(four: DevCluster) -> None:
    """And, in the same wait, a failed health check drains another."""
    four.bad("node1")
    four.bad("node4", "health")
    with pytest.raises(UserError, match="prolog or health"):
        four.bad("node1", "mood")
    assert "node1 is flagged: its prolog check fails" in four.summary()
    number = submit(four, "sleep 300", "--nodes=2")
    wait_for(lambda: job(four, number) == ("RUNNING", ["node2", "node3"]), "the job on healthy nodes")
    wait_for(lambda: four.status()["node4"] == "drained", "a node that failed its health check")
    lines = four.summary()
    assert "node1 drained (Prolog error)" in lines and "node4 drained (health check failed)" in lines
    tell(four, "scancel", number)
    four.good("node1")
    four.good("node4")
    wait_for(lambda: four.summary() == ["node[1-4] idle"], "four good nodes")


@pytest.mark.slurm
def test_an_urgent_job_takes_nodes_from_train_and_a_new_controller_knows_both(four: DevCluster) -> None:
    """`--signal` comes first, so that the job can save and requeue itself."""
    save = "trap 'echo told; scontrol requeue $SLURM_JOB_ID; sleep 60' USR2; echo attempt ${SLURM_RESTART_COUNT:-0}; sleep 300 & wait; wait"
    number = submit(four, save, "--nodes=4", "--exclusive", "--gpus-per-node=8", "--ntasks-per-node=8", "--cpus-per-task=12", "--signal=B:USR2@60")
    output = four.root / f"job-{number}.txt"
    wait_for(lambda: output.is_file() and "attempt 0" in output.read_text(), "the first attempt")
    urgent = submit(four, "echo begun; sleep 4; echo ended", "--nodes=4", "--exclusive", "--partition=urgent")
    wait_for(lambda: job(four, urgent)[0] == "RUNNING", "the urgent job")
    four.stop_controller()
    assert not four.is_running()
    time.sleep(1)
    four.start_controller()
    assert job(four, urgent)[0] == "RUNNING" and job(four, number)[0] == "PENDING"
    wait_for(lambda: job(four, urgent)[0] == "COMPLETED", "the end of the urgent job")
    wait_for(lambda: "attempt 1" in output.read_text(), "the second attempt")
    assert output.read_text().count("told") == 1
    assert (four.root / f"job-{urgent}.txt").read_text().split() == ["begun", "ended"]
    tell(four, "scancel", number)
    wait_for(lambda: len(four.idle()) == 4, "four idle nodes")


@pytest.mark.slurm
@pytest.mark.slow
def test_sixty_two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One rank a node on sixty, as a script for real machines asks for them."""
    monkeypatch.setenv("CPT_DEVCLUSTER", str(tmp_path / "c"))
    cluster = DevCluster(tmp_path / "c")
    try:
        assert verb.main(["start", "nodes=62"]) == 0
        assert "node[1-62] idle" in capsys.readouterr().out.splitlines()
        options = ("--nodes=60", "--exclusive", "--gpus-per-node=8", "--ntasks-per-node=1", "--cpus-per-task=12")
        number = submit(cluster, 'srun sh -c "hostname >> hosts.txt"', *options)
        wait_for(lambda: job(cluster, number)[0] == "COMPLETED", "sixty ranks")
        assert len(set((cluster.root / "hosts.txt").read_text().split())) == (60 if cluster.layout.isolated else 1)
    finally:
        cluster.stop()


@pytest.mark.slurm
@pytest.mark.slow
def test_with_accounting_sacct_tells_how_a_job_ended(tmp_path: Path) -> None:
    try:
        accounting.packages()
    except UserError as error:
        pytest.skip(str(error))
    cluster = DevCluster(tmp_path / "c")
    cluster.start(1, accounting=True)
    try:
        numbers = [submit(cluster, script) for script in ("true", "exit 3")]

        def booked() -> list[str]:
            return [tell(cluster, "sacct", "-nXP", f"--jobs={number}", "--format=State,ExitCode") for number in numbers]

        wait_for(lambda: booked() == ["COMPLETED|0:0", "FAILED|3:0"], "the end of two jobs in the books")
        records = [process.ProcessRecord.load(path) for path in cluster.root.glob("run/*.json")]
        assert len(records) == 5, "munged, slurmctld, slurmdbd, mariadbd, a node"
    finally:
        cluster.stop()
    assert not any(process.lives(record) for record in records)
