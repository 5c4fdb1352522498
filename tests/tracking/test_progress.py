"""Where a run is and how it came back, from what it journaled."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.core.attempts import Action, AttemptBegin, AttemptEnd, Ending
from cpt.core.paths import RunPaths
from cpt.tracking.goodput import Lifetime
from cpt.tracking.journal import Journal, read_metrics
from cpt.tracking.progress import last_step, progress, recoveries


def train(run: RunPaths, attempt: int, steps: range, start: float, seconds: float = 2.0) -> None:
    now = start
    with Journal(run, attempt, clock=lambda: now) as journal:
        journal.event("attempt_begin", resume_step=steps.start - 1)
        for step in steps:
            now += seconds
            values = {"train/loss": 3.0 - step / 10, "train/step_seconds": seconds / 2, "train/tokens_per_second": 100.0 * step}
            journal.metrics(step, step * 8, step * 64, values)
            journal.metrics(step, step * 8, step * 64, {"heldout/loss/domain": 1.0})


def lifetime(number: int, time: float, step: int, path: str, ending: Ending | None) -> Lifetime:
    begin = AttemptBegin(number=number, job="7", restarts=0, nodes=["node1"], step=step, time=time, path=path)
    return begin, ending and AttemptEnd(number=number, ending=ending, action=Action.requeue, code=-1, message="", step=step, time=time + 1)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path)


def test_progress_is_the_last_attempts(run: RunPaths) -> None:
    train(run, 0, range(1, 8), start=1000.0)
    train(run, 1, range(6, 8), start=2000.0, seconds=5.0)
    found = progress(read_metrics(run))
    assert found is not None
    assert (found.step, found.time, found.step_seconds, found.consumed_tokens) == (7, 2010.0, 5.0, 448)
    assert found.loss == pytest.approx(2.3)
    assert found.tokens_per_second == 650.0


def test_no_step_yet(run: RunPaths) -> None:
    assert progress([]) is None and last_step(run) is None
    train(run, 0, range(1, 2), start=0.0)
    with Journal(run, 1) as journal:
        journal.metrics(1, 8, 64, {"heldout/loss/domain": 1.0})
    found = progress(read_metrics(run))
    assert found is not None and found.step_seconds == 1.0  # of one step: what it said itself
    assert last_step(run) == (1, pytest.approx(2.9))


def test_last_step_is_found_at_the_end_of_a_long_journal(run: RunPaths) -> None:
    train(run, 0, range(1, 2000), start=0.0)
    with open(run.metrics(0), "a") as torn:
        torn.write('{"step": 2000, "val')
    assert last_step(run) == (1999, pytest.approx(3.0 - 199.9))


def test_recoveries_run_from_the_last_step_to_the_next(run: RunPaths) -> None:
    train(run, 0, range(1, 8), start=1000.0)  # until 1014
    train(run, 2, range(6, 9), start=1050.0)  # its first step at 1052
    attempts = [
        lifetime(0, 990.0, 0, "submit", Ending.node_lost),
        lifetime(1, 1020.0, 5, "relaunch", Ending.launch_failure),
        lifetime(2, 1040.0, 5, "requeue", None),
    ]
    first, second = recoveries(attempts, read_metrics(run))
    assert (first.attempt, first.path, first.ending, first.seconds, first.lost_steps) == (1, "relaunch", "node_lost", None, 2)
    assert (second.attempt, second.path, second.ending, second.seconds, second.lost_steps) == (2, "requeue", "launch_failure", 38.0, 0)


def test_an_attempt_that_nobody_closed(run: RunPaths) -> None:
    (recovery,) = recoveries([lifetime(0, 1.0, 0, "submit", None), lifetime(1, 2.0, 0, "requeue", None)], [])
    assert (recovery.ending, recovery.seconds) == ("unknown", None)
