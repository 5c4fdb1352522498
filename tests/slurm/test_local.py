"""A run without SLURM: the same supervisor and the same recovery, ranks as child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_text
from cpt.core.attempts import Action, AttemptBegin, AttemptEnd, Ending, StopRecord
from cpt.core.errors import EXIT_OURS, CptError
from cpt.core.heartbeat import read_beats
from cpt.core.paths import RunPaths
from slurm import here, local, standing, submit
from slurm.here import Here
from slurm.local import Supervised, once
from slurm.recovery import Verdict
from slurm.supervisor import supervise
from tests.slurm.conftest import SMALL, STAND_IN, behave, wait_for

Make = Callable[..., tuple[RunPaths, RunConfig]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def run(*overrides: str, name: str = "run", **how: Any) -> tuple[RunPaths, RunConfig]:
        config = compose_config([*SMALL, "cluster=local", "slurm.tasks_per_node=2", *overrides])
        paths = RunPaths(tmp_path / name)
        write_text(paths.config, to_yaml(config))
        behave(paths, **{"seconds": 0.02, "beat": 0.1} | how)
        return paths, config

    return run


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A supervisor takes signals over for good; this process lives on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def keep(run: RunPaths, config: RunConfig) -> Verdict:
    return supervise(run, config, Here(config, STAND_IN))


def ends(run: RunPaths) -> list[tuple[Ending, Action]]:
    return [(end.ending, end.action) for end in (AttemptEnd.load(attempt.end) for attempt in run.attempts())]


def test_ranks_meet_and_finish(make: Make) -> None:
    run, config = make(steps=5)
    assert keep(run, config).action is Action.done
    texts = [run.attempt(0).log(rank).read_text() for rank in range(2)]
    assert all(f"attempt 0 rank {rank} of 2" in text for rank, text in enumerate(texts))
    assert ends(run) == [(Ending.done, Action.done)]


def test_a_killed_rank_takes_its_siblings_along_and_the_run_resumes(make: Make) -> None:
    run, config = make(steps=12, fault={"rank": 1, "step": 8, "kind": "kill", "attempts": 1})
    assert keep(run, config).action is Action.done
    assert ends(run) == [(Ending.rank_crash, Action.relaunch), (Ending.done, Action.done)]
    assert (AttemptBegin.load(run.attempt(1).begin).step, AttemptBegin.load(run.attempt(1).begin).path) == (5, "relaunch")
    assert AttemptEnd.load(run.attempt(0).end).code in (-signal.SIGKILL, EXIT_OURS), "its own, or that of the sibling that lost it"


def test_the_first_failure_stays_the_steps_answer() -> None:
    """A sibling that our own SIGTERM ended comes before it in the order of ranks."""
    ranks = [subprocess.Popen(["sleep", "60"]), subprocess.Popen(["sh", "-c", "exit 3"])]
    ranks[1].wait()
    step = here.LocalStep(ranks)
    assert (step.poll(), step.poll()) == (3, 3)
    assert ranks[0].returncode == -signal.SIGTERM


def test_a_stopped_rank_is_found_and_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = make("slurm.hang_seconds=1", "slurm.start_seconds=1", steps=12, fault={"rank": 1, "step": 8, "kind": "stop", "attempts": 1})
    monkeypatch.setattr(here, "_GRACE", 0.2)
    assert keep(run, config).action is Action.done
    assert ends(run)[0] == (Ending.hang, Action.relaunch)
    assert "most recent call first" in run.attempt(0).log(0).read_text(), "where the other one waits"


def test_the_same_crash_twice_ends_it_and_the_next_run_has_its_turn(make: Make) -> None:
    run, _ = make(steps=12, fault={"rank": 1, "step": 2, "kind": "exit"})
    other, _ = make(name="other", steps=5)
    with pytest.raises(CptError, match="the same crash twice without progress"):
        Supervised([run.root, other.root], STAND_IN)()
    assert ends(run) == [(Ending.rank_crash, Action.relaunch), (Ending.rank_crash, Action.fail)]
    assert submit.is_done(other)


def test_told_to_stop_it_saves_and_starts_nothing_more(make: Make) -> None:
    run, _ = make(steps=100_000, save_every=1_000_000)
    other, _ = make(name="other", steps=5)

    def tell() -> None:
        wait_for(lambda: sum(beat.step > 0 for beat in read_beats(run.attempt(0))) == 2, "both ranks to work")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    (said,) = Supervised([run.root, other.root], STAND_IN)()
    assert said.startswith("told to stop (signal), saved at step")
    assert ends(run) == [(Ending.preempted, Action.requeue)]
    assert StopRecord.load(run.stopped).step > 0 and other.attempts() == []


def test_submitted_it_outlives_the_submitter_and_is_found_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = make(steps=40)
    monkeypatch.setattr(local, "Supervised", lambda runs: Supervised(runs, STAND_IN))
    began = time.monotonic()
    submit.submit(config, run)
    assert not submit.is_done(run), f"returned after {time.monotonic() - began:.1f} s, with the run under way"
    assert "RUNNING" in submit.queued(config, run)
    assert standing.of_run(run).state is standing.State.running
    wait_for(lambda: submit.is_done(run), "the run")
    wait_for(lambda: not submit.queued(config, run), "the supervisor to end")
    shown = standing.of_run(run)
    assert (shown.state, shown.why, shown.queue, shown.checkpoint) == (standing.State.done, "finished at step 40", "", 40)


def test_once_in_this_process(make: Make) -> None:
    run, config = make()

    def train(attempt: int) -> int:
        StopRecord(reason="done", step=3, attempt=attempt).save(run.stopped)
        return 0

    assert once(run, config, train) == 0
    assert once(run, config, train) == 0 and len(run.attempts()) == 1, "the finished run is not begun again"


def test_once_closes_the_attempt_of_a_training_that_raises(make: Make) -> None:
    run, config = make()

    def train(attempt: int) -> int:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        once(run, config, train)
    end = AttemptEnd.load(run.attempt(0).end)
    assert (end.code, end.ending) == (EXIT_OURS, Ending.launch_failure)
