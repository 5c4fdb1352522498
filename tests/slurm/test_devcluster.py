"""The development cluster itself."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from cpt.core.errors import UserError
from slurm import process
from slurm.devcluster import DevCluster
from slurm.devcluster import cluster as cluster_module
from slurm.devcluster.layout import ClusterFiles, ClusterLayout, hosts, slurm_conf
from slurm.devcluster.rights import can_run


def test_two_clusters_share_no_name_address_or_port() -> None:
    here, there = (ClusterLayout(slot=slot, nodes=3, isolated=True) for slot in (0, 1))
    for name in ("bridge", "network", "gateway", "controller_port"):
        assert getattr(here, name) != getattr(there, name)
    assert here.namespace(1) != there.namespace(1)
    plain = [ClusterLayout(slot=slot, nodes=99, isolated=False) for slot in range(20)]
    ports = [layout.port(index) for layout in plain for index in range(1, 100)] + [layout.controller_port for layout in plain]
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
    cluster.stop()
    assert not cluster.root.exists()
    assert not any(process.lives(record) for record in records)
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert layout.bridge not in links and layout.namespace(1) not in links + spaces
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
