"""`cpt launch`: a run directory is written once, submitted, and found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cpt.config.run import RunConfig
from cpt.config.seal import read_config, to_yaml
from cpt.core.artifacts import write_text
from cpt.core.attempts import StopRecord
from cpt.core.errors import MissingInput, UserError
from cpt.core.paths import RunPaths
from cpt.plan import plan, unprepared
from cpt.topology import Hint
from jobs import launch
from slurm import client, submit
from slurm.script import Origin, render
from slurm.submit import JobRecord


class Scheduler:
    """In place of a cluster: what was submitted, and what it says of it."""

    def __init__(self) -> None:
        self.submitted: list[Path] = []
        self.says = ""


class Written:
    def __init__(self, config: RunConfig) -> None:
        self.config, self.plan = config, plan(config, unprepared(config))

    def write(self, run: RunPaths, hint: Hint | None = None) -> None:
        write_text(run.script, render(self.config, run, Origin(), hint=hint))
        write_text(run.config, to_yaml(self.config))


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


def test_sixty_nodes_and_two_spare(scheduler: Scheduler, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither corpus nor base is prepared, no scheduler answers, and nothing is written, not even the run root."""

    def nothing_else(*_: object) -> None:
        raise AssertionError("a dry run asks nobody")

    for name in ("require", "submit", "queued"):
        monkeypatch.setattr(submit, name, nothing_else)
    monkeypatch.setattr(launch, "prepare", nothing_else)
    root = tmp_path / "runs"
    assert launch.main(["experiment=ellama_70b", "cluster=h100_ib", "slurm.spare_nodes=2", f"run_root={root}", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "#SBATCH --nodes=60-62\n" in shown and "--nodes=60 --ntasks=480 --ntasks-per-node=8" in shown and "spare_nodes: 2" in shown
    assert "TORCH_NCCL_DUMP_ON_TIMEOUT" in shown, "h100_ib runs over fabric=infiniband"
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_names_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary in the environment shows up in no file, no output, no submission's arguments."""
    sent: list[str] = []
    monkeypatch.setattr(launch, "prepare", Written)
    monkeypatch.setattr(client, "require", lambda cluster: None)
    monkeypatch.setattr(client, "submit", lambda *arguments: sent.append(str(arguments)) or "4711")
    monkeypatch.setattr(client, "jobs", lambda *arguments, **named: [])
    arguments = ["experiment=demo", f"run_root={tmp_path}", "cluster.secrets=[HF_TOKEN,OTHER_KEY]"]
    monkeypatch.setenv("OTHER_KEY", "canary-2")
    with pytest.raises(UserError) as caught:
        launch.main(arguments)
    assert [(problem.where, problem.what, problem.fix) for problem in caught.value.problems] == [
        ("cluster.secrets", "HF_TOKEN is not set", "export HF_TOKEN=...")
    ]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("HF_TOKEN", "canary-1")
    for runtime in ([], ["cluster.runtime=apptainer", "cluster.image=/x.sif"], ["cluster.runtime=pyxis", "cluster.image=/x.sqsh"]):
        assert launch.main([*arguments, *runtime, "--dry-run"]) == 0
    assert launch.main(arguments) == 0
    captured = capsys.readouterr()
    written = {path: path.read_text() for path in only(tmp_path).root.rglob("*") if path.is_file()}
    assert len(written) >= 3 and any("HF_TOKEN" in text for text in written.values())
    assert not [path for path, text in written.items() if "canary" in text]
    assert "canary" not in captured.out + captured.err + "".join(sent)


def test_a_plan_beyond_the_budget_is_not_launched(run_it: Callable[..., int], scheduler: Scheduler, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"budget\.gpu_hours"):
        run_it("budget.gpu_hours=0.0001")
    assert scheduler.submitted == []
    assert list(tmp_path.glob("demo-*")) == []


def test_unless_told_otherwise(run_it: Callable[..., int], scheduler: Scheduler) -> None:
    assert run_it("budget.gpu_hours=0.0001", "--over-budget") == 0
    assert len(scheduler.submitted) == 1
