"""`cpt train -m` as one job array on a real SLURM, and without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpt.config.run import RunConfig
from cpt.config.seal import write_config
from cpt.core.artifacts import write_text
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths
from cpt.core.records import SweepRecord
from slurm import client, standing, submit
from slurm.hydra_launcher import Launched, multirun
from slurm.submit import JobRecord
from tests.slurm.conftest import SMALL, STAND_IN, wait_for

AXES = ["experiment=lr_sweep", "optimizer.lr_ratio=0.03,0.3", "mixture=balanced,domain_heavy"]


class Rehearsal:
    """Writes what the stand-in needs; `broken` trials crash at once, `refused` ones do not pass the check."""

    def __init__(self, broken: Callable[[RunConfig], bool] = lambda _: False, refused: Callable[[RunConfig], bool] = lambda _: False) -> None:
        self.broken = broken
        self.refused = refused

    def __call__(self, config: RunConfig) -> Any:
        if self.refused(config):
            raise UserError(Problem(where="corpus", what="not prepared", why="a test says so", fix="cpt prepare"))
        return Directory(config, {"steps": 15} | ({"crash": {"rank": 0, "step": 2, "kind": "exit"}} if self.broken(config) else {}))


class Directory:
    def __init__(self, config: RunConfig, how: dict[str, Any]) -> None:
        self.config = config
        self.how = how

    def write(self, run: RunPaths) -> None:
        write_text(run.root / "behave.json", json.dumps(self.how))
        write_config(self.config, run.config)


@pytest.fixture
def sweep(tmp_path: Path, on_cluster: list[str]) -> Callable[..., Launched]:
    def launch(*overrides: str, prepare: Rehearsal | None = None) -> Launched:
        every = [*AXES, *on_cluster, f"run_root={tmp_path}", *overrides]
        return multirun(every, prepare or Rehearsal(), ["cpt", "train", "-m"], STAND_IN)

    return launch


def states(launched: Launched) -> list[str]:
    return [state for _, _, state, _ in standing.of_sweep(launched.sweep)]


def settled(launched: Launched) -> list[str]:
    return wait_for(lambda: [] if set(states(launched)) - {"done", "failed"} else states(launched), f"the trials to end: {states(launched)}")


def job_of(launched: Launched, index: int) -> str:
    return JobRecord.load(launched.trials[index].run.job).id


@pytest.mark.slurm
def test_one_array_returns_at_once_and_only_what_failed_is_submitted_again(sweep: Callable[..., Launched]) -> None:
    first = sweep(prepare=Rehearsal(broken=lambda config: config.optimizer.lr_ratio > 0.2))
    assert [trial.state for trial in first.trials] == ["submitted"] * 4
    assert [job_of(first, index) for index in range(4)] == [f"{first.job}_{index}" for index in range(4)], "one array"
    assert not any(trial.run.stopped.is_file() for trial in first.trials), "returned before any trial had ended"

    during = sweep()
    assert during.job == "" and "submitted" not in [trial.state for trial in during.trials], "what is queued is not submitted twice"

    assert settled(first) == ["done", "done", "failed", "failed"]
    cluster = RunConfig().cluster
    cluster.slurm_conf = next(item.partition("=")[2] for item in first.trials[0].overrides if item.startswith("cluster.slurm_conf"))
    assert [client.final_state(cluster, job_of(first, index)) for index in range(4)] == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]

    second = sweep("slurm.array_parallelism=1")
    assert [trial.state for trial in second.trials] == ["done", "done", "submitted", "submitted"], "found again, though job policy changed"
    assert [job_of(second, index) for index in range(4)] == [f"{first.job}_0", f"{first.job}_1", f"{second.job}_0", f"{second.job}_1"]
    assert settled(second) == ["done"] * 4
    assert len(SweepRecord.load(second.sweep.sweep).trials) == 4

    third = sweep()
    assert third.job == ""


@pytest.mark.slurm
def test_a_trial_of_several_ranks_agrees_on_one_attempt(sweep: Callable[..., Launched]) -> None:
    launched = sweep("slurm.nodes=2", "slurm.tasks_per_node=2", "train.global_batch_size=16", "optimizer.lr_ratio=0.1", "mixture=balanced")
    assert settled(launched) == ["done"]
    run = launched.trials[0].run
    assert len(run.attempts()) == 1
    logs = [run.attempt(0).log(rank).read_text() for rank in range(4)]
    assert all(f"attempt 0 rank {rank} of 4" in text for rank, text in enumerate(logs))
    assert len({text.rpartition(" via ")[2] for text in logs}) == 1, "one meeting point"


@pytest.mark.slurm
def test_editing_yaml_after_submission_changes_nothing(sweep: Callable[..., Launched]) -> None:
    launched = sweep("optimizer.lr_ratio=0.1", "mixture=balanced")
    sealed = launched.trials[0].run.config.read_text()
    assert "lr_ratio: 0.1" in sealed and "${" not in sealed
    assert settled(launched) == ["done"]
    assert launched.trials[0].run.config.read_text() == sealed


@pytest.mark.slurm
def test_a_running_trial_told_to_stop_saves_and_comes_back(sweep: Callable[..., Launched]) -> None:
    class Slow(Rehearsal):
        def __call__(self, config: RunConfig) -> Any:
            return Directory(config, {"steps": 120, "save_every": 1000, "seconds": 0.2})

    launched = sweep("optimizer.lr_ratio=0.1", "mixture=balanced", "slurm.time=1", "slurm.signal_lead=50", prepare=Slow())
    assert settled(launched) == ["done"]
    attempts = launched.trials[0].run.attempts()
    assert json.loads(attempts[0].end.read_text())["classification"] == "signal"
    assert json.loads(attempts[1].begin.read_text())["step"] > 0


@pytest.mark.slurm
def test_one_bad_trial_and_nothing_is_submitted(sweep: Callable[..., Launched], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        sweep(prepare=Rehearsal(refused=lambda config: config.optimizer.lr_ratio > 0.2))
    assert [problem.what for problem in caught.value.problems] == ["not prepared"], "said once, not once per trial"
    assert "trial 2" in caught.value.problems[0].where
    assert not (tmp_path / "sweeps").exists()


def test_wrong_values_of_several_trials_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        multirun([*SMALL, "optimizer.lr_ratio=-1,0.1,-2", f"run_root={tmp_path}"], Rehearsal(), ["cpt"], STAND_IN)
    assert [problem.where for problem in caught.value.problems if "trial 0 " in problem.where or "trial 2 " in problem.where]
    assert len(caught.value.problems) == 2
    assert list(tmp_path.iterdir()) == []


def test_trials_of_different_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one sweep is one job array"):
        multirun([*SMALL, "slurm.nodes=1,2", "train.global_batch_size=8", f"run_root={tmp_path}"], Rehearsal(), ["cpt"], STAND_IN)
    assert list(tmp_path.iterdir()) == []


def test_another_launcher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hydra/launcher=slurm"):
        multirun([*SMALL, "hydra/launcher=basic", f"run_root={tmp_path}"], Rehearsal(), ["cpt"], STAND_IN)


def test_without_slurm_the_same_sweep_runs_here(tmp_path: Path) -> None:
    every = [*AXES, *SMALL, "cluster=local", "slurm.array_parallelism=2", f"run_root={tmp_path}"]
    first = multirun(every, Rehearsal(broken=lambda config: config.optimizer.lr_ratio > 0.2), ["cpt"], STAND_IN)
    assert [trial.state for trial in first.trials] == ["submitted"] * 4
    assert settled(first) == ["done", "done", "failed", "failed"]
    wait_for(lambda: not submit.queued(*_config_of(first)), "the supervisors to end")
    second = multirun(every, Rehearsal(), ["cpt"], STAND_IN)
    assert [trial.state for trial in second.trials] == ["done", "done", "submitted", "submitted"]
    assert settled(second) == ["done"] * 4


def _config_of(launched: Launched) -> tuple[RunConfig, RunPaths]:
    from cpt.config.seal import read_config

    run = launched.trials[3].run
    return read_config(run.config), run
