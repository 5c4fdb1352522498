"""`cpt train -m` as one job array on a real SLURM, and without one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import cpt.config.compose
import cpt.config.multirun
from cpt.config.run import RunConfig
from cpt.config.running import ClusterConfig
from cpt.config.seal import read_config, to_yaml
from cpt.core.artifacts import write_text
from cpt.core.attempts import AttemptBegin, AttemptEnd, Ending
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths
from cpt.core.records import SweepRecord
from jobs.sweep_table import objective, table
from slurm import arrays, client, standing, sweep_wait
from slurm.devcluster import DevCluster
from slurm.hydra_launcher import Task, multirun
from slurm.submit import JobRecord
from slurm.sweep_launch import Caller, Launched
from tests.slurm.conftest import SMALL, STAND_IN, wait_for

AXES = ["experiment=lr_sweep", "optimizer.lr_ratio=0.03,0.3", "mixture=balanced,domain_heavy"]
WITH_OBJECTIVE = (sys.executable, str(Path(__file__).with_name("stand_in_objective.py")))
ONE = ["optimizer.lr_ratio=0.1", "mixture=balanced"]


@dataclass
class Rehearsal:
    """Writes what the stand-in needs; `broken` trials crash at once, `refused` ones do not pass the check."""

    broken: Callable[[RunConfig], bool] = lambda _: False
    refused: Callable[[RunConfig], bool] = lambda _: False
    how: dict[str, Any] = field(default_factory=lambda: {"steps": 8})

    def __call__(self, config: RunConfig) -> Any:
        if self.refused(config):
            raise UserError(Problem(where="corpus", what="not prepared", why="a test says so", fix="cpt prepare"))
        return Directory(config, self.how | ({"fault": {"rank": 0, "step": 2, "kind": "fatal"}} if self.broken(config) else {}))


@dataclass
class Directory:
    config: RunConfig
    how: dict[str, Any]

    def write(self, run: RunPaths) -> None:
        write_text(run.root / "behave.json", json.dumps(self.how))
        write_text(run.config, to_yaml(self.config))


def task(prepare: Rehearsal | None = None, ranks: tuple[str, ...] = STAND_IN) -> Task:
    return Task(Caller(prepare=prepare or Rehearsal(), command=["cpt", "train", "-m"], rank_command=ranks), objective)


@pytest.fixture
def sweep(tmp_path: Path, on_cluster: list[str]) -> Callable[..., Launched]:
    def launch(*overrides: str, prepare: Rehearsal | None = None, given: Task | None = None) -> Launched:
        return multirun([*AXES, *on_cluster, "slurm.preflight=false", f"run_root={tmp_path}", *overrides], given or task(prepare))

    return launch


def states(launched: Launched) -> list[str]:
    return [state for _, _, state, _ in standing.of_sweep(launched.sweep)]


def settled(launched: Launched) -> list[str]:
    return wait_for(lambda: [] if set(states(launched)) - {"done", "failed"} else states(launched), f"the trials to end: {states(launched)}")


def job_of(launched: Launched, index: int) -> str:
    return JobRecord.load(launched.trials[index].run.job).id


def cluster_of(launched: Launched) -> ClusterConfig:
    return read_config(launched.trials[0].run.config).cluster


def endings(run: RunPaths) -> list[Ending]:
    """The last word of training comes a moment before its supervisor's."""
    wait_for(lambda: run.attempts()[-1].end.is_file(), "the end of the last attempt")
    return [AttemptEnd.load(attempt.end).ending for attempt in run.attempts()]


@pytest.mark.slurm
def test_one_array_returns_at_once_and_only_what_failed_is_submitted_again(sweep: Callable[..., Launched]) -> None:
    first = sweep(prepare=Rehearsal(broken=lambda config: config.optimizer.lr_ratio > 0.2))
    assert [trial.state for trial in first.trials] == ["submitted"] * 4
    assert [(trial.job, job_of(first, trial.index)) for trial in first.trials] == [(f"{first.job}_{task}",) * 2 for task in range(4)], "one array"
    assert not any(trial.run.stopped.is_file() for trial in first.trials), "returned before any trial had ended"

    during = sweep()
    assert during.job == "" and "submitted" not in [trial.state for trial in during.trials], "what is queued is not submitted twice"

    assert settled(first) == ["done", "done", "failed", "failed"]
    final = [wait_for(lambda job=trial.job: _ended(cluster_of(first), job), f"the end of {trial.job}") for trial in first.trials]
    assert final == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]

    second = sweep("slurm.array_parallelism=1")
    assert [trial.state for trial in second.trials] == ["done", "done", "submitted", "submitted"], "found again, though job policy changed"
    assert [job_of(second, index) for index in range(4)] == [f"{first.job}_0", f"{first.job}_1", f"{second.job}_0", f"{second.job}_1"]
    assert settled(second) == ["done"] * 4
    assert [len(trial.run.attempts()) for trial in second.trials] == [1, 1, 2, 2], "what is done never ran again"
    assert len(SweepRecord.load(second.sweep.sweep).trials) == 4

    third = sweep()
    assert third.job == ""
    assert [line.split()[:4] for line in table(third, {}).splitlines()[2:-2]] == [
        [f"{trial.index:03d}", trial.fingerprint, "done", trial.overrides[1]] for trial in third.trials
    ]


def _ended(cluster: ClusterConfig, job: str) -> str:
    state = client.final_state(cluster, job)
    return state if state in ("COMPLETED", "FAILED") else ""


@pytest.mark.slurm
def test_a_trial_of_several_nodes_has_a_log_for_each_rank_and_comes_back_inside_its_allocation(sweep: Callable[..., Launched]) -> None:
    crash = Rehearsal(how={"steps": 8, "fault": {"rank": 3, "step": 4, "kind": "exit", "attempts": 1}})
    launched = sweep("slurm.nodes=2", "slurm.spare_nodes=1", "slurm.tasks_per_node=2", "train.global_batch_size=16", *ONE, prepare=crash)
    assert settled(launched) == ["done"]
    run = launched.trials[0].run
    assert endings(run) == [Ending.rank_crash, Ending.done]
    for attempt in run.attempts():
        logs = [attempt.log(rank).read_text() for rank in range(4)]
        assert all(f"attempt {attempt.number} rank {rank} of 4" in text for rank, text in enumerate(logs))
        assert len({text.splitlines()[0].partition(" via ")[2] for text in logs}) == 1, "one meeting point"
    first, second = (AttemptBegin.load(attempt.begin) for attempt in run.attempts())
    assert (len(first.nodes), len(first.spares), second.path, second.job) == (2, 1, "relaunch", first.job)


@pytest.mark.slurm
def test_editing_yaml_after_submission_changes_nothing(sweep: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf"
    shutil.copytree(cpt.config.compose.CONFIG_FOLDER, folder)
    for module in (cpt.config.compose, cpt.config.multirun):
        monkeypatch.setattr(module, "CONFIG_FOLDER", folder)
    launched = sweep("mixture=balanced", "+slurm.extra.begin=now+5", "optimizer.lr_ratio=0.1", given=task(ranks=WITH_OBJECTIVE))
    assert states(launched) == ["PENDING"]
    sealed = launched.trials[0].run.config.read_text()
    assert "lr_ratio: 0.1" in sealed and "${" not in sealed
    shutil.rmtree(folder)
    assert settled(launched) == ["done"]
    assert launched.trials[0].run.config.read_text() == sealed
    assert objective(launched.trials[0].run) == 2.0, "the rank saw what was sealed"


@pytest.mark.slurm
def test_a_preempted_trial_saves_and_one_whose_node_dies_resumes_from_disk(sweep: Callable[..., Launched], cluster: DevCluster) -> None:
    slow = Rehearsal(how={"steps": 60, "save_every": 4, "seconds": 0.2})
    launched = sweep("mixture=balanced", "slurm.nodes=2", "train.global_batch_size=8", "slurm.array_parallelism=2", "+slurm.extra.exclusive=''", prepare=slow)
    told, lost = (trial.run for trial in launched.trials)
    wait_for(lambda: told.latest.is_file() and lost.latest.is_file(), "a checkpoint of both")
    node = AttemptBegin.load(lost.attempt(0).begin).nodes[0]
    cluster.kill(node)
    with client.using(cluster_of(launched)):
        subprocess.run(["scancel", "--batch", "--signal=USR2", launched.trials[0].job], check=True)
    try:
        assert settled(launched) == ["done", "done"]
    finally:
        cluster.up(node)
    assert endings(told) == [Ending.preempted, Ending.done]
    assert endings(lost) == [Ending.node_lost, Ending.done]
    for run in (told, lost):
        first, second = (AttemptBegin.load(attempt.begin) for attempt in run.attempts())
        assert first.step == 0 < second.step and (second.path, second.job) == ("requeue", first.job)


KILLED = """
import os, signal, sys
from slurm.executor import ArrayExecutor
from slurm.hydra_launcher import multirun
from tests.slurm.test_sweep_on_cluster import task

when, *overrides = sys.argv[1:]
submit = ArrayExecutor.submit_tasks

def die(*arguments):
    if when == "after":
        submit(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

ArrayExecutor.submit_tasks = die
multirun(overrides, task())
"""


@pytest.mark.slurm
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_launcher_killed_around_its_submission_loses_and_doubles_nothing(
    sweep: Callable[..., Launched], tmp_path: Path, on_cluster: list[str], repository: Path, when: str
) -> None:
    overrides = [*AXES, *on_cluster, "slurm.preflight=false", f"run_root={tmp_path}"]
    died = subprocess.run([sys.executable, "-c", KILLED, when, *overrides], cwd=repository, capture_output=True, text=True, check=False)
    assert died.returncode == -9, died.stderr
    again = sweep()
    assert [trial.state == "submitted" for trial in again.trials] == [when == "before"] * 4, "the first array is found in the queue, by its name"
    assert settled(again) == ["done"] * 4
    assert [len(trial.run.attempts()) for trial in again.trials] == [1] * 4
    assert all(job_of(again, index) for index in range(4)), "each task wrote down whose it is"


@pytest.mark.slow
@pytest.mark.slurm
def test_a_sweeper_that_learns_gets_objectives_and_failures(sweep: Callable[..., Launched], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="extra [sweepers] is not installed")
    given = task(Rehearsal(broken=lambda config: config.mixture.domain_share > 0.6, how={"steps": 3}), WITH_OBJECTIVE)
    optuna = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=4", "hydra.sweeper.max_failure_rate=1", "hydra.sweeper.sampler.seed=3"]
    space = ["optimizer.lr_ratio=tag(log,interval(0.01,1))", "mixture.domain_share=0.5,0.7"]
    launched = sweep("mixture=balanced", *optuna, *space, "hydra.launcher.detach=false", given=given)
    assert len(given.launches) == 2 and all(batch.job for batch in given.launches), "an array each time the sweeper asks"
    numbers = {index: result for index, result in given.results.items() if isinstance(result, float)}
    assert len(given.results) == len(launched.trials) == len(numbers) + sum("fatal" in str(result) for result in given.results.values())
    assert 0 < len(numbers) < len(given.results)
    best = yaml.safe_load((launched.sweep.root / "optimization_results.yaml").read_text())
    assert best["best_value"] == pytest.approx(min(numbers.values()))
    assert best["best_params"]["mixture.domain_share"] in (0.5, "0.5")
    assert not (tmp_path / "optimization_results.yaml").exists() and not Path("optimization_results.yaml").exists()


@pytest.mark.slurm
def test_one_bad_trial_and_nothing_is_submitted(sweep: Callable[..., Launched], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        sweep(prepare=Rehearsal(refused=lambda config: config.optimizer.lr_ratio > 0.2))
    assert [problem.what for problem in caught.value.problems] == ["not prepared"], "said once, not once per trial"
    assert "trial 2" in caught.value.problems[0].where
    assert not (tmp_path / "sweeps").exists()


def test_wrong_values_of_several_trials_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        multirun([*SMALL, "optimizer.lr_ratio=-1,0.1,-2", f"run_root={tmp_path}"], task())
    assert [problem.where for problem in caught.value.problems if "trial 0 " in problem.where or "trial 2 " in problem.where]
    assert len(caught.value.problems) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["slurm.nodes=1,2", "train.global_batch_size=8"], "one sweep is one job array"),
        (["hydra/launcher=basic"], "hydra/launcher=slurm"),
        (["hydra/launcher=slurm", "cluster=local"], "hydra/launcher=local"),
        (["hydra/launcher=local", "cluster=devcluster"], "cluster=local"),
        (["hydra/sweeper=basic", "optimizer.lr_ratio=0.1,0.2"], "hydra.launcher.detach=false"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        multirun([*SMALL, *overrides, f"run_root={tmp_path}"], task())
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_another_launch_has_just_changed_is_left_alone(tmp_path: Path) -> None:
    class Meanwhile(Rehearsal):
        def __call__(self, config: RunConfig) -> Any:
            arrays.Submission(name="other", trials=[], fingerprints=[]).save(config.runs.sweep("lr_sweep").submissions / "000" / "submission.json")
            return super().__call__(config)

    with pytest.raises(UserError, match="another launch of lr_sweep"):
        multirun([*AXES, *SMALL, "cluster=local", f"run_root={tmp_path}"], task(Meanwhile()))
    assert not list(tmp_path.glob("sweeps/*/trials"))


def test_without_slurm_the_same_sweep_runs_here(tmp_path: Path) -> None:
    every = [*AXES, *SMALL, "hydra/launcher=local", "slurm.array_parallelism=2", f"run_root={tmp_path}", "hydra.launcher.detach=false"]
    first = task(Rehearsal(broken=lambda config: config.optimizer.lr_ratio > 0.2), WITH_OBJECTIVE)
    launched = multirun(every, first)
    assert [trial.state for trial in launched.trials] == ["submitted"] * 4
    assert states(launched) == ["done", "done", "failed", "failed"], "came back when all had ended"
    assert [isinstance(first.results[index], float) for index in range(4)] == [True, True, False, False]
    assert "failed" in table(launched, first.results).splitlines()[-3]
    second = task(ranks=WITH_OBJECTIVE)
    again = multirun(every, second)
    assert [trial.state for trial in again.trials] == ["done", "done", "submitted", "submitted"]
    assert all(isinstance(result, float) for result in second.results.values()) and len(second.results) == 4


def test_a_trial_that_vanishes_from_the_queue_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, looks = RunPaths(tmp_path / "trials" / "000"), iter([{run_root: "RUNNING"} for run_root in [tmp_path / "trials" / "000"]] + [{}, {}])
    monkeypatch.setattr(sweep_wait.arrays, "active", lambda config, runs: next(looks))
    ((ended, why),) = sweep_wait.ends(RunConfig(), [run], sleep=lambda _: None)
    assert ended == run and "without a word" in why
    assert next(looks, None) is None, "looked twice before it was believed"
