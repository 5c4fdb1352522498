"""A run without SLURM: the supervisor, its ranks, and the same recovery."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.config.seal import write_config
from cpt.core.attempts import AttemptBegin, AttemptEnd, StopRecord
from cpt.core.errors import EXIT_OURS, CptError
from cpt.core.paths import RunPaths
from slurm import local, standing, submit
from slurm.local import Supervisor, Watch, once
from slurm.recovery import Action
from tests.slurm.conftest import SMALL, STAND_IN, behave, wait_for


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[RunPaths, RunConfig]]:
    def run(*overrides: str, **how: Any) -> tuple[RunPaths, RunConfig]:
        config = compose_config([*SMALL, "cluster=local", "slurm.tasks_per_node=2", *overrides])
        paths = RunPaths(tmp_path / "run")
        write_config(config, paths.config)
        behave(paths, seconds=0.02, **how)
        return paths, config

    return run


@pytest.fixture(autouse=True)
def handlers() -> Any:
    """A supervisor takes signals over for good; this process lives on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ends(run: RunPaths) -> list[tuple[str, str]]:
    found = (AttemptEnd.load(attempt.end) for attempt in run.attempts())
    return [(end.classification, end.action) for end in found]


def test_ranks_meet_and_finish(make: Callable[..., tuple[RunPaths, RunConfig]]) -> None:
    run, _ = make(steps=5)
    assert Watch(run, STAND_IN).keep_alive().action is Action.done
    texts = [run.attempt(0).log(rank).read_text() for rank in range(2)]
    assert all(f"attempt 0 rank {rank} of 2" in text for rank, text in enumerate(texts))
    assert ends(run) == [("done", "done")]


def test_a_killed_rank_takes_its_siblings_along_and_the_run_resumes(make: Callable[..., tuple[RunPaths, RunConfig]]) -> None:
    run, _ = make(steps=12, crash={"rank": 1, "step": 8, "kind": "kill", "attempts": 1})
    assert Watch(run, STAND_IN).keep_alive().action is Action.done
    assert ends(run) == [("crash", "requeue"), ("done", "done")]
    assert AttemptBegin.load(run.attempt(1).begin).step == 5
    assert AttemptEnd.load(run.attempt(0).end).code == -signal.SIGKILL


def test_the_same_crash_twice_ends_it(make: Callable[..., tuple[RunPaths, RunConfig]]) -> None:
    run, _ = make(steps=12, crash={"rank": 1, "step": 2, "kind": "exit"})
    with pytest.raises(CptError, match="twice without progress"):
        Supervisor([run.root], STAND_IN)()
    assert ends(run) == [("crash", "requeue"), ("repeated_crash", "fail")]


def test_told_to_stop_it_saves_and_does_not_start_again(make: Callable[..., tuple[RunPaths, RunConfig]]) -> None:
    run, _ = make(steps=100_000, save_every=1_000_000)

    def tell() -> None:
        wait_for(lambda: (run.attempt(0).root / "beat" / "1").is_file(), "both ranks to work")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell, daemon=True).start()
    assert Watch(run, STAND_IN).keep_alive().action is Action.requeue
    assert ends(run) == [("signal", "requeue")]
    assert StopRecord.load(run.stopped).step > 0


def test_submitted_it_outlives_the_submitter_and_is_found_again(make: Callable[..., tuple[RunPaths, RunConfig]], monkeypatch: pytest.MonkeyPatch) -> None:
    run, config = make(steps=40)
    monkeypatch.setattr(local, "Supervisor", lambda runs: Supervisor(runs, STAND_IN))
    began = time.monotonic()
    submit.submit(config, run)
    assert not submit.is_done(run), f"returned after {time.monotonic() - began:.1f} s, with the run under way"
    assert "RUNNING" in submit.queued(config, run)
    wait_for(lambda: submit.is_done(run), "the run")
    wait_for(lambda: not submit.queued(config, run), "the supervisor to end")
    shown = standing.of_run(run)
    assert (shown.outcome, shown.queue, shown.checkpoint) == ("done at step 40", "", 40)


def test_once_in_this_process(make: Callable[..., tuple[RunPaths, RunConfig]]) -> None:
    run, config = make()

    def train(attempt: int) -> int:
        StopRecord(reason="done", step=3, attempt=attempt).save(run.stopped)
        return 0

    assert once(run, config, train) == 0
    assert once(run, config, train) == 0 and len(run.attempts()) == 1, "the finished run is not begun again"


def test_once_closes_the_attempt_of_a_training_that_raises(make: Callable[..., tuple[RunPaths, RunConfig]]) -> None:
    run, config = make()

    def train(attempt: int) -> int:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        once(run, config, train)
    end = AttemptEnd.load(run.attempt(0).end)
    assert (end.code, end.classification) == (EXIT_OURS, "crash")
