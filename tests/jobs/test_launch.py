"""`cpt launch`: a run directory is written once, submitted, and found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cpt.config.run import RunConfig
from cpt.config.seal import read_config, write_config
from cpt.core.artifacts import write_text
from cpt.core.attempts import AttemptBegin, AttemptEnd, StopRecord
from cpt.core.errors import MissingInput, UserError
from cpt.core.paths import RunPaths
from jobs import launch, status
from slurm import submit
from slurm.script import Origin, render
from slurm.submit import JobRecord


class Scheduler:
    """In place of a cluster: what was submitted, and what it says of it."""

    def __init__(self) -> None:
        self.submitted: list[Path] = []
        self.says = ""


class Written:
    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def write(self, run: RunPaths) -> None:
        write_text(run.script, render(self.config, run, Origin()))
        write_config(self.config, run.config)


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    fake = Scheduler()

    def accept(config: RunConfig, run: RunPaths) -> JobRecord:
        fake.submitted.append(run.script)
        return JobRecord(id="4711", scheduler="slurm", time=0.0)

    monkeypatch.setattr(launch, "prepare", Written)
    monkeypatch.setattr(submit, "require", lambda config: None)
    monkeypatch.setattr(submit, "submit", accept)
    monkeypatch.setattr(submit, "queued", lambda config, run: fake.says)
    return fake


@pytest.fixture
def run_it(tmp_path: Path) -> Callable[..., int]:
    return lambda *more: launch.main(["experiment=demo", f"run_root={tmp_path}", *more])


def only(tmp_path: Path) -> RunPaths:
    (found,) = tmp_path.glob("demo-*")
    return RunPaths(found)


def test_a_dry_run_shows_script_and_config_and_touches_nothing(
    run_it: Callable[..., int], scheduler: Scheduler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_it("--dry-run") == 0
    shown = capsys.readouterr().out
    assert "#SBATCH --nodes=2" in shown and "tensor_parallel_size: 3" in shown
    assert scheduler.submitted == [] and list(tmp_path.iterdir()) == []


def test_the_first_launch_writes_and_submits(run_it: Callable[..., int], scheduler: Scheduler, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_it() == 0
    run = only(tmp_path)
    assert scheduler.submitted == [run.script] and read_config(run.config).name == "demo"
    shown = capsys.readouterr().out
    assert "submitted 4711" in shown and "cpt status" in shown and "sbatch" in shown and run.root.name.rpartition("-")[2] in shown


def test_the_same_run_is_not_submitted_twice(run_it: Callable[..., int], scheduler: Scheduler, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_it()
    scheduler.says = "job 4711 RUNNING on node[1-2]"
    assert run_it() == 0
    assert "under way: job 4711 RUNNING" in capsys.readouterr().out
    scheduler.says = ""
    assert run_it() == 0
    assert scheduler.submitted == [only(tmp_path).script] * 2, "no longer in the queue: the directory's own script again"
    StopRecord(reason="done", step=40, attempt=0).save(only(tmp_path).stopped)
    assert launch.main(["--run", str(only(tmp_path).root)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert len(scheduler.submitted) == 2


def test_what_stays_as_sealed_is_said(run_it: Callable[..., int], scheduler: Scheduler, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_it()
    run_it("slurm.time=9:00:00")
    assert "slurm.time stays '2:00:00'" in capsys.readouterr().out.replace('"', "'")
    assert read_config(only(tmp_path).config).slurm.time == "2:00:00"


def test_a_run_that_is_not_prepared_leaves_nothing(run_it: Callable[..., int], scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: RunConfig) -> Written:
        raise MissingInput(path="manifest.json", why="not prepared", fix="cpt prepare")

    monkeypatch.setattr(launch, "prepare", refuse)
    with pytest.raises(UserError, match="cpt prepare"):
        run_it()
    assert scheduler.submitted == [] and list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_run(scheduler: Scheduler, tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        launch.main(["--run", str(tmp_path)])
    assert scheduler.submitted == []


def test_status_tells_every_attempt(run_it: Callable[..., int], scheduler: Scheduler, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_it()
    run = only(tmp_path)
    AttemptBegin(number=0, job="7", restarts=0, nodes=["node1", "node2"], step=0, time=100.0).save(run.attempt(0).begin)
    AttemptEnd(number=0, classification="lost", action="requeue", code=-1, message="died", step=10, time=200.0).save(run.attempt(0).end)
    AttemptBegin(number=1, job="7", restarts=1, nodes=["node1", "node3"], step=10, time=230.0).save(run.attempt(1).begin)
    scheduler.says = "job 7 RUNNING"
    capsys.readouterr()
    assert status.main([str(run.root)]) == 0
    shown = capsys.readouterr().out
    assert "node1 node2" in shown and "lost: died" in shown and "requeue" in shown and "10-" in shown and "job 7 RUNNING" in shown


def test_status_needs_one_directory() -> None:
    with pytest.raises(UserError, match="cpt status"):
        status.main([])
