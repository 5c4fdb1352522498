"""e-Llama's script, rendered for 60 nodes, on a SLURM of 62: one light rank a node. What SLURM does at this size it does not do with four."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from cpt.config.compose import compose_config
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_text
from cpt.core.attempts import Action, Ending
from cpt.core.heartbeat import read_beats
from cpt.core.paths import RunPaths
from slurm import client
from slurm.devcluster import DevCluster, can_run
from slurm.script import Origin, render
from tests.slurm.conftest import STAND_IN, Submitted, behave, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

HEARTBEAT = 5.0
"""Seconds of silence, here and on the page: what comes on top is the recovery itself."""

SETTINGS = [
    "experiment=ellama_70b",
    "slurm.tasks_per_node=1",
    "parallel.tensor_parallel_size=1",
    "cluster.partition=train",
    "cluster.cpu_bind=''",
    "cluster.mem_bind=''",
    "slurm.heartbeat_seconds=1",
    f"slurm.silence_seconds={HEARTBEAT}",
]


@pytest.fixture(scope="module")
def sixty_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    possible, why = can_run()
    if not possible:
        pytest.skip(why)
    cluster = DevCluster(tmp_path_factory.mktemp("cluster62"))
    begun = time.monotonic()
    cluster.start(62)
    print(f"\n62 nodes idle after {time.monotonic() - begun:.1f} s")
    yield cluster
    cluster.stop()


def launch(cluster: DevCluster, folder: RunPaths, overrides: list[str], **how: object) -> Submitted:
    config = compose_config([*SETTINGS, f"cluster.slurm_conf={cluster.files.slurm_conf}", *overrides])
    write_text(folder.config, to_yaml(config))
    behave(folder, **({"steps": 100000, "save_every": 10, "seconds": 0.2, "beat": 1.0} | how))
    write_text(folder.script, render(config, folder, Origin(), STAND_IN))
    return Submitted(config, folder, client.submit(config.cluster, folder.script))


def all_up(job: Submitted, attempt: int) -> bool:
    return len(read_beats(job.run.attempt(attempt))) == 60


def training(job: Submitted, attempt: int) -> bool:
    return len(job.rows(attempt)) > 12


def timed(job: Submitted, attempt: int, since: float, what: str) -> float:
    wait_for(lambda: all_up(job, attempt), f"60 ranks of attempt {attempt}: {job.log()[-2000:]}", 240)
    seconds = time.time() - since
    wait_for(lambda: job.rows(attempt), "the first step", 60)
    print(f"{what}: 60 ranks again after {seconds:.1f} s, next step after {job.rows(attempt)[0]['ts_ms'] / 1000 - since:.1f} s")
    return seconds


def nothing_drained(cluster: DevCluster) -> None:
    assert not [node for node, state in cluster.status().items() if "drain" in state]


def test_with_spares_it_recovers_inside_the_allocation(sixty_two: DevCluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    submitted = time.time()
    crash = {"rank": 33, "step": 30, "kind": "exit", "attempts": 1}
    job = launch(sixty_two, RunPaths(tmp_path_factory.mktemp("spares")), ["slurm.spare_nodes=2"], fault=crash)
    timed(job, 0, submitted, "first start, preflight of 62 nodes included")
    assert len(job.begins()[0].spares) == 2
    wait_for(lambda: job.ends(), f"the crash of rank 33: {job.log()}")
    assert timed(job, 1, job.rows(0)[-1]["ts_ms"] / 1000, "rank crash") < 15
    wait_for(lambda: training(job, 1), "some steps")
    lost = job.begins()[1].nodes[16]
    at = time.time()
    sixty_two.kill(lost)
    try:
        assert timed(job, 2, at, "power loss of a worker node, spare") < HEARTBEAT + 15
        assert [(end.ending, end.action) for end in job.ends()] == [(Ending.rank_crash, Action.relaunch), (Ending.node_lost, Action.relaunch)]
        assert lost not in job.begins()[2].nodes and len(job.begins()[2].nodes) == 60
        wait_for(lambda: training(job, 2), "some steps")
        wait_for(lambda: "down" in sixty_two.status()[lost], "SLURM to notice")
        assert training(job, 2) and len(job.begins()) == 3, "which the new ranks do not notice"
        nothing_drained(sixty_two)
    finally:
        subprocess.run(["scancel", job.job], env=client.environment(job.config.cluster), check=True)
        sixty_two.up(lost)
    wait_for(lambda: len(sixty_two.idle()) == 62, f"62 idle nodes: {sixty_two.status()}", 200)


def test_without_a_spare_it_recovers_through_the_queue(sixty_two: DevCluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    job = launch(sixty_two, RunPaths(tmp_path_factory.mktemp("requeue")), [])
    wait_for(lambda: training(job, 0), f"some steps: {job.log()}")
    lost = job.begins()[0].nodes[16]
    at = time.time()
    sixty_two.kill(lost)
    try:
        assert timed(job, 1, at, "power loss of a worker node, no spare (requeue)") < 150
        assert [(end.ending, end.action) for end in job.ends()] == [(Ending.node_lost, Action.requeue)]
        assert lost not in job.begins()[1].nodes and job.begins()[1].path == "requeue"
        nothing_drained(sixty_two)
    finally:
        subprocess.run(["scancel", job.job], env=client.environment(job.config.cluster), check=True)
        sixty_two.up(lost)
