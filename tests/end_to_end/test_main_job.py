"""The whole way with a tiny model, on a real SLURM of three nodes, one of which loses power: every verb as a user types it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cpt.config.compose import compose_config
from cpt.config.fingerprint import fingerprint
from cpt.core.attempts import DrillRecord
from cpt.core.paths import RunPaths
from cpt.core.records import EvaluationRecord, ExportRecord, SweepTable
from cpt.tracking.journal import read_events, series
from slurm.devcluster import DevCluster
from tests.tiny import SETTINGS

pytestmark = [pytest.mark.slurm, pytest.mark.engine]

LAYOUT = ["slurm.nodes=2", "slurm.tasks_per_node=2", "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    cluster = DevCluster(tmp_path_factory.mktemp("cluster"))
    cluster.start(3)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def settings(cluster: DevCluster, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What every command of this job has in common."""
    common = [item for item in SETTINGS if not item.startswith("cluster=")]
    own = ["name=small", "cluster=devcluster", f"cluster.slurm_conf={cluster.files.slurm_conf}", f"run_root={tmp_path_factory.mktemp('runs')}"]
    return [*common, *own, "train.train_tokens=20480", "evaluate.benchmark_items=8"]


def cpt(*arguments: str, code: int = 0) -> str:
    """Run a verb in a process of its own; returns what it printed."""
    done = subprocess.run([sys.executable, "-m", "jobs.cli", *arguments], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == code, f"cpt {' '.join(arguments)} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_from_raw_text_to_a_report_through_a_power_loss(settings: list[str]) -> None:
    cpt("base", *settings)
    assert "next: cpt prepare" in cpt("base", *settings)
    cpt("prepare", *settings)
    chosen = sweep_and_choose(settings)
    run = launch_and_lose_power([*settings, *chosen])
    finish(run)


def sweep_and_choose(settings: list[str]) -> list[str]:
    axes = ["optimizer.lr_ratio=0.1,1.0", "mixture=balanced,domain_heavy"]
    short = ["train.train_tokens=2560", "sweep.name=small", "slurm.array_parallelism=2"]
    assert "array job" in cpt("train", "-m", "hydra/launcher=slurm", *settings, *short, *axes)
    cpt("sweep", "--wait", "--timeout", "400", *settings, *short)
    config = compose_config(settings)
    table = SweepTable.load(config.runs.sweep("small").table)
    assert [row.state for row in table.rows] == ["done"] * 4
    assert table.chosen is not None
    return ["chosen=small"]


def launch_and_lose_power(settings: list[str]) -> RunPaths:
    from jobs import drill

    config = compose_config([*settings, *LAYOUT])
    run = config.runs.run(config.name, fingerprint(config))
    assert "slurm.nodes" in cpt("launch", *settings, *LAYOUT, "slurm.nodes=3", "train.global_batch_size=9", code=2)
    assert not run.root.exists()
    cpt("plan", *settings, *LAYOUT)
    cpt("launch", *settings, *LAYOUT)
    shown = cpt("launch", *settings, *LAYOUT)
    assert "under way" in shown
    (pull,) = [line.removesuffix("stop") + "save" for line in shown.splitlines() if "touch " in line]
    subprocess.run(shlex.split(pull), check=True)  # what is printed works
    drill.lose_power(config, run, print)
    drill.wait_until_done(run, print)
    assert "finished" in cpt("launch", *settings, *LAYOUT)
    return run


def finish(run: RunPaths) -> None:
    assert sorted(series(run, "train/loss")) == list(range(1, 41))
    drilled = DrillRecord.load(run.drill)
    resumed = [event.fields["step"] for event in read_events(run) if event.name == "resume"]
    assert len(resumed) == 1
    assert 5 <= resumed[0] <= drilled.step
    cpt("evaluate", "--run", str(run.root))
    before, after = EvaluationRecord.load(run.evaluation("before")), EvaluationRecord.load(run.evaluation("after"))
    assert (before.step, after.step) == (0, 40)
    assert after.group_loss("domain") < before.group_loss("domain")
    cpt("export", "--run", str(run.root))
    assert ExportRecord.load(run.export_record).step == 40
    cpt("sync", str(run.root))
    cpt("report", "--run", str(run.root))
    page = run.report.read_text()
    assert "power" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
