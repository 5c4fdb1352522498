"""The decision table, and what begin and end leave on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cpt.config.running import SlurmConfig
from cpt.core.artifacts import write_json
from cpt.core.attempts import AttemptBegin, AttemptEnd, RankRecord, StopRecord
from cpt.core.paths import RunPaths
from slurm import recovery
from slurm.recovery import Action, Evidence, RunState, decide

LIMITS = SlurmConfig(max_attempts=10, max_no_progress=3)


def rank(outcome: str = "crash", signature: str = "Boom", number: int = 0, step: int = 4) -> RankRecord:
    return RankRecord(rank=number, host="node1", outcome=outcome, step=step, signature=signature, message="why")


def stop(reason: str) -> StopRecord:
    return StopRecord(reason=reason, step=7, attempt=0)


def evidence(**known: Any) -> Evidence:
    plain: dict[str, Any] = {"attempt": 0, "code": 143, "signaled": False, "stop": None, "ranks": [], "step_before": 5, "step_now": 5}
    return Evidence(**(plain | known))


CLEAN = RunState(job="1", first_attempt=0)
WORRIED = RunState(job="1", first_attempt=0, no_progress=2)
SEEN = RunState(job="1", first_attempt=0, no_progress=1, signature="Boom at step 4")

TABLE: list[tuple[str, Evidence, RunState, str, Action]] = [
    ("finished", evidence(stop=stop("done"), code=0), CLEAN, "done", Action.done),
    ("finished, though a rank fell over afterwards", evidence(stop=stop("done"), ranks=[rank()]), SEEN, "done", Action.done),
    ("told to stop, saved", evidence(stop=stop("signal"), signaled=True, step_now=7), CLEAN, "signal", Action.requeue),
    ("told to stop with nothing new to save: not counted", evidence(stop=stop("signal"), signaled=True), WORRIED, "signal", Action.requeue),
    ("told to stop, did not save", evidence(signaled=True), CLEAN, "signal", Action.requeue),
    ("told to stop, never saves", evidence(signaled=True), WORRIED, "no_progress", Action.hold),
    ("own deadline", evidence(stop=stop("deadline"), step_now=7), CLEAN, "deadline", Action.requeue),
    ("the user asked", evidence(stop=stop("trigger"), step_now=7), CLEAN, "trigger", Action.done),
    ("fatal at the first attempt", evidence(ranks=[rank("fatal")]), CLEAN, "fatal", Action.fail),
    ("fatal in spite of progress", evidence(ranks=[rank(), rank("fatal")], step_now=9), CLEAN, "fatal", Action.fail),
    ("crash with progress", evidence(ranks=[rank()], step_now=9), CLEAN, "crash", Action.requeue),
    ("the same crash, but with progress between", evidence(ranks=[rank()], step_now=9), SEEN, "crash", Action.requeue),
    ("crash without progress", evidence(ranks=[rank()]), CLEAN, "crash", Action.requeue),
    ("the same crash again", evidence(ranks=[rank()]), SEEN, "repeated_crash", Action.fail),
    ("another crash", evidence(ranks=[rank(signature="Bang")]), SEEN, "crash", Action.requeue),
    ("the same crash at another step", evidence(ranks=[rank(step=3)]), SEEN, "crash", Action.requeue),
    ("siblings complain about their lost peer", evidence(ranks=[rank(signature="Bang"), rank(number=1)]), SEEN, "crash", Action.requeue),
    ("no word from anybody", evidence(), CLEAN, "crash", Action.requeue),
    ("no word, and never progress", evidence(), WORRIED, "no_progress", Action.hold),
    ("srun could not start its tasks", evidence(code=233), CLEAN, "crash", Action.requeue),
    ("a node is down", evidence(ranks=[rank()], lost_nodes=["node2"]), SEEN, "lost", Action.requeue),
    ("nodes go down again and again without progress", evidence(lost_nodes=["node2"]), WORRIED, "no_progress", Action.hold),
    ("too many attempts, in spite of progress", evidence(attempt=9, step_now=9), CLEAN, "too_many_attempts", Action.hold),
    ("attempts of an earlier job do not count", evidence(attempt=9, step_now=9), RunState(job="1", first_attempt=5), "crash", Action.requeue),
]


@pytest.mark.parametrize(("what", "found", "state", "classification", "action"), TABLE, ids=[row[0] for row in TABLE])
def test_verdicts(what: str, found: Evidence, state: RunState, classification: str, action: Action) -> None:
    verdict, _ = decide(found, state, LIMITS)
    assert (verdict.classification, verdict.action) == (classification, action)
    assert verdict.message


def test_progress_forgets_and_its_absence_is_counted() -> None:
    assert decide(evidence(ranks=[rank()], step_now=6), SEEN, LIMITS)[1] == RunState(job="1", first_attempt=0)
    assert decide(evidence(ranks=[rank()]), CLEAN, LIMITS)[1] == SEEN
    assert decide(evidence(stop=stop("signal")), WORRIED, LIMITS)[1] == WORRIED


def test_a_hundred_requeues_with_progress_are_fine() -> None:
    state, limits = CLEAN, SlurmConfig(max_attempts=1000, max_no_progress=3)
    for attempt in range(100):
        verdict, state = decide(evidence(attempt=attempt, step_before=attempt, step_now=attempt + 1, ranks=[rank()]), state, limits)
        assert verdict.action is Action.requeue


def test_exit_codes_are_the_houses() -> None:
    codes = {what: decide(found, state, LIMITS)[0].exit_code for what, found, state, _, _ in TABLE}
    assert codes["finished"] == 0
    assert codes["crash with progress"] == 75
    assert codes["no word, and never progress"] == 80
    assert codes["the same crash again"] == 1
    assert codes["fatal at the first attempt"] == 2


def begin(run: RunPaths, job: str = "1", restarts: int = 0) -> tuple[recovery.Verdict | None, int]:
    return recovery.begin(run, job=job, restarts=restarts, nodes=["node1", "node2"], limits=LIMITS)


def end(run: RunPaths, attempt: int, code: int = 143) -> recovery.Verdict:
    return recovery.end(run, recovery.gather(run, attempt, code, False), LIMITS)


def checkpoint(run: RunPaths, step: int) -> None:
    write_json(run.latest, {"step": step})


def test_attempts_are_numbered_and_described(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    assert begin(run) == (None, 0)
    checkpoint(run, 5)
    assert end(run, 0).action is Action.requeue
    assert begin(run, restarts=1) == (None, 1)
    first, second = AttemptBegin.load(run.attempt(0).begin), AttemptBegin.load(run.attempt(1).begin)
    assert (first.step, first.restarts, first.nodes, first.job) == (0, 0, ["node1", "node2"], "1")
    assert (second.step, second.restarts) == (5, 1)
    assert AttemptEnd.load(run.attempt(0).end).step == 5


def test_a_finished_run_begins_nothing(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    StopRecord(reason="done", step=40, attempt=0).save(run.stopped)
    nothing, _ = begin(run)
    assert nothing is not None and nothing.exit_code == 0 and "40" in nothing.message
    assert run.attempts() == []


def test_an_attempt_without_an_end_was_lost(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    begin(run)
    checkpoint(run, 5)
    begin(run, restarts=1)
    lost = AttemptEnd.load(run.attempt(0).end)
    assert (lost.classification, lost.action, lost.code, lost.step) == ("lost", "requeue", -1, 5)
    assert lost.time == pytest.approx(run.attempt(0).begin.stat().st_mtime), "the time of the last file that it touched"
    assert RunState.load(run.state).no_progress == 0


def test_a_lost_attempt_names_the_nodes_that_are_down(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    begin(run)
    recovery.begin(run, job="1", restarts=1, nodes=["node1"], limits=LIMITS, down=lambda nodes: [node for node in nodes if node == "node2"])
    assert AttemptEnd.load(run.attempt(0).end).message == "lost node2, step 0 -> 0"


def test_losing_attempt_after_attempt_without_progress_is_held(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    for restarts in range(3):
        assert begin(run, restarts=restarts) == (None, restarts)
    nothing, _ = begin(run, restarts=3)
    assert nothing is not None and nothing.exit_code == 80
    assert begin(run, job="2") == (None, 3), "a human submitted it again"
    assert RunState.load(run.state) == RunState(job="2", first_attempt=3)


def test_a_stop_of_an_earlier_attempt_says_nothing_about_this_one(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    begin(run)
    StopRecord(reason="signal", step=5, attempt=0).save(run.stopped)
    end(run, 0)
    begin(run, restarts=1)
    assert end(run, 1).classification == "crash"


def test_an_obeyed_stop_trigger_does_not_stop_the_next_submission(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    begin(run)
    run.triggers.mkdir()
    (run.triggers / "stop").touch()
    StopRecord(reason="trigger", step=5, attempt=0).save(run.stopped)
    assert end(run, 0).action is Action.done
    assert not (run.triggers / "stop").exists()


def test_the_first_crash_written_is_the_cause(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    begin(run)
    for number, (name, moment) in enumerate({"ConnectionError": 200, "OutOfMemoryError": 100}.items()):
        path = run.attempt(0).rank(number)
        rank(signature=name, number=number).save(path)
        os.utime(path, (moment, moment))
    assert "OutOfMemoryError" in end(run, 0).message


def test_state_on_disk_is_plain_json(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    begin(run)
    rank().save(run.attempt(0).rank(0))
    end(run, 0)
    assert json.loads(run.state.read_text()) == {"job": "1", "first_attempt": 0, "no_progress": 1, "signature": "Boom at step 4"}
