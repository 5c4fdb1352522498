"""Paths of a run are counted where they lie."""

from __future__ import annotations

from pathlib import Path

from cpt.core.paths import RunsRoot


def test_a_run_directory_knows_its_attempts(tmp_path: Path) -> None:
    run = RunsRoot(tmp_path).run("demo", "0123456789")
    assert run.root == tmp_path / "demo-0123456789"
    assert run.attempts() == []
    for number in (2, 0, 11):
        run.attempt(number).root.mkdir(parents=True)
    assert [attempt.number for attempt in run.attempts()] == [0, 2, 11]
    assert run.attempt(3).rank(7).name == "rank_0007.json"


def test_a_sweep_knows_its_trials(tmp_path: Path) -> None:
    sweep = RunsRoot(tmp_path).sweep("lr")
    for index in (10, 0, 2):
        sweep.trial(index).root.mkdir(parents=True)
    assert [trial.root.name for trial in sweep.trials()] == ["000", "002", "010"]


def test_what_cpt_sweep_writes_is_where_hydra_looks(tmp_path: Path) -> None:
    runs = RunsRoot(tmp_path)
    assert runs.chosen("lr") == runs.config_folder / "chosen" / "lr.yaml"
