"""The book of attempts on disk: who opens, who closes, and what is remembered from one to the next."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from cpt.config.running import SlurmConfig
from cpt.core.artifacts import write_json, write_text
from cpt.core.attempts import Action, AttemptBegin, AttemptEnd, Ending, RankRecord, StopRecord
from cpt.core.heartbeat import Heart
from cpt.core.paths import RunPaths
from slurm import attempts
from slurm.attempts import Start
from slurm.recovery import Evidence, RunState, Verdict

NODES = ("node1", "node2")


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path)


def begin(run: RunPaths, job: str = "1", restarts: int = 0, down: Sequence[str] = (), **how: str) -> int:
    return attempts.begin(run, Start(job=job, restarts=restarts, nodes=NODES, **how), lambda nodes: [node for node in nodes if node in down])


def end(run: RunPaths, attempt: int, code: int = 143, longest: dict[str, float] | None = None) -> Verdict:
    return attempts.end(run, attempts.gather(run, attempt, code), SlurmConfig(), longest)


def checkpoint(run: RunPaths, step: int) -> None:
    write_json(run.latest, {"step": step})


def test_a_fast_checkpoint_is_progress_too(run: RunPaths) -> None:
    """Nodes that fail more often than full checkpoints come must not look like a run that gets nowhere."""
    for attempt in range(4):
        assert begin(run, path="requeue") == attempt
        write_json(run.fast, {"step": 10 * attempt + 10})
        crash(run, attempt, at=float(attempt))
        assert end(run, attempt).action is Action.requeue
    assert [(began(run, number).step, ended(run, number).step) for number in range(4)] == [(0, 10), (10, 20), (20, 30), (30, 40)]
    checkpoint(run, 45)
    assert (attempts.last_step(run), attempts.last_full_step(run), attempts.last_fast_step(run)) == (45, 45, 40)


def crash(run: RunPaths, attempt: int, number: int = 0, signature: str = "Boom", message: str = "", at: float = 100.0) -> None:
    record = RankRecord(rank=number, host=f"node{number + 1}", outcome="crash", step=4, time=at, signature=signature, message=message)
    record.save(run.attempt(attempt).rank(number))


def began(run: RunPaths, attempt: int) -> AttemptBegin:
    return AttemptBegin.load(run.attempt(attempt).begin)


def ended(run: RunPaths, attempt: int) -> AttemptEnd:
    return AttemptEnd.load(run.attempt(attempt).end)


def test_attempts_are_numbered_and_described(run: RunPaths) -> None:
    assert attempts.begin(run, Start(job="1", restarts=0, nodes=NODES, spares=["node3"])) == 0
    checkpoint(run, 5)
    crash(run, 0)
    assert end(run, 0).action is Action.requeue, "no room was reported"
    assert begin(run, restarts=1, path="requeue") == 1
    first, second = began(run, 0), began(run, 1)
    assert (first.job, first.restarts, first.nodes, first.spares, first.step, first.path) == ("1", 0, ["node1", "node2"], ["node3"], 0, "submit")
    assert (second.restarts, second.spares, second.step, second.path) == (1, [], 5, "requeue")
    last = ended(run, 0)
    assert (last.ending, last.action, last.code, last.step, last.rank) == (Ending.rank_crash, Action.requeue, 143, 5, 0)


def test_a_folder_that_holds_only_a_preflight_is_used(run: RunPaths) -> None:
    write_text(run.attempt(0).preflight / "node1.json", "{}")
    assert attempts.next_number(run) == 0 and begin(run) == 0
    end(run, 0)
    write_text(run.attempt(1).preflight / "node1.json", "{}")
    assert attempts.next_number(run) == 1
    assert begin(run, restarts=1) == 1, "and attempt 0 is the one before it"
    assert not run.attempt(1).end.is_file() and RunState.load(run.state).streak == {"launch_failure": 1}


def test_a_finished_run_says_so(run: RunPaths) -> None:
    assert attempts.finished(run) is None
    StopRecord(reason="signal", step=20, attempt=0).save(run.stopped)
    assert attempts.finished(run) is None
    StopRecord(reason="done", step=40, attempt=0).save(run.stopped)
    nothing = attempts.finished(run)
    assert nothing is not None and (nothing.exit_code, nothing.message) == (0, "finished at step 40; nothing to do")


def test_an_attempt_without_an_end_is_closed_by_the_next(run: RunPaths) -> None:
    begin(run)
    checkpoint(run, 5)
    os.utime(run.attempt(0).begin, (1000, 1000))
    write_text(run.metrics(0), "{}")
    os.utime(run.metrics(0), (2000, 2000))
    begin(run, restarts=1, down=["node2", "elsewhere"])
    lost = ended(run, 0)
    assert (lost.ending, lost.action, lost.code, lost.step, lost.nodes) == (Ending.node_lost, Action.requeue, -1, 5, ["node2"])
    assert lost.message == "lost node2, checkpoint 0 -> 5"
    assert lost.time == 2000, "the time of the last file that it touched"
    assert attempts.load_suspects(run).blamed == {"node2": ["attempt 0: node_lost"]}
    assert RunState.load(run.state).streak == {}, "it made progress"


def test_nobody_is_blamed_when_all_nodes_are_up_again(run: RunPaths) -> None:
    begin(run)
    begin(run, restarts=1)
    assert ended(run, 0).nodes == [] and "its supervisor on node1 died without a word" in ended(run, 0).message
    assert attempts.load_suspects(run).blamed == {}


def test_a_supervisor_on_a_spare_is_not_taken_for_one_on_the_first_node(run: RunPaths) -> None:
    begin(run, host="node3")
    begin(run, restarts=1)
    assert "its supervisor on node3 died without a word" in ended(run, 0).message


def test_lost_attempts_without_progress_are_counted_and_end_in_a_hold(run: RunPaths) -> None:
    for restarts in range(5):
        begin(run, restarts=restarts, down=["node1"])
    assert RunState.load(run.state).streak == {"node_lost": 4}
    assert "node1" in attempts.load_suspects(run).excluded
    verdict = attempts.end(run, Evidence(attempt=4, code=1, lost_nodes=["node1"]), SlurmConfig())
    assert (verdict.action, verdict.exit_code) == (Action.hold, 80)


def test_a_new_job_starts_the_counts_afresh(run: RunPaths) -> None:
    begin(run)
    crash(run, 0)
    end(run, 0, longest={"step": 3.0})
    assert RunState.load(run.state) == RunState(job="1", streak={"rank_crash": 1}, signature="Boom after step 4", longest={"step": 3.0})
    begin(run, restarts=1)
    assert RunState.load(run.state).streak == {"rank_crash": 1}, "the same job does not"
    begin(run, job="2")
    state = RunState.load(run.state)
    assert (state.job, state.first_attempt, state.streak, state.signature) == ("2", 2, {}, "")
    assert state.longest == {"step": 3.0}, "what was measured stays true"


def test_the_next_job_of_a_chain_goes_on_with_the_counts(run: RunPaths) -> None:
    begin(run)
    crash(run, 0)
    end(run, 0)
    state = RunState.load(run.state)
    RunState(**state.as_dict() | {"successor": "2"}).save(run.state)
    begin(run, job="2")
    after = RunState.load(run.state)
    assert (after.job, after.successor, after.streak, after.signature) == ("2", "", {"rank_crash": 1}, "Boom after step 4")
    assert (began(run, 1).path, began(run, 1).job) == ("chain", "2")
    crash(run, 1)
    assert end(run, 1).action is Action.fail, "the same crash twice, by two jobs"


def test_another_job_than_the_successor_is_a_human(run: RunPaths) -> None:
    begin(run)
    crash(run, 0)
    end(run, 0)
    RunState(**RunState.load(run.state).as_dict() | {"successor": "2"}).save(run.state)
    begin(run, job="3")
    assert RunState.load(run.state) == RunState(job="3", first_attempt=1) and began(run, 1).path == "submit"


def test_what_the_ranks_left_is_the_evidence(run: RunPaths) -> None:
    begin(run)
    assert not attempts.gather(run, 0, 143).beaten
    with Heart(run.attempt(0).beat("node1", 0), 0, "node1", 60.0):
        pass
    assert attempts.gather(run, 0, 143).beaten
    crash(run, 0, 1, "ConnectionError", at=200.0)
    crash(run, 0, 2, "OutOfMemoryError", at=100.0)
    found = attempts.gather(run, 0, 143)
    assert [rank.rank for rank in found.ranks] == [2, 1], "the first crash is the cause"
    assert found.cause is not None and found.cause.signature == "OutOfMemoryError"
    assert end(run, 0).message.startswith("rank 2 on node3: OutOfMemoryError")


def test_a_stop_of_an_earlier_attempt_says_nothing_about_this_one(run: RunPaths) -> None:
    begin(run)
    StopRecord(reason="signal", step=5, attempt=0).save(run.stopped)
    assert end(run, 0).ending is Ending.preempted
    begin(run, restarts=1)
    assert end(run, 1).ending is Ending.launch_failure


def test_an_obeyed_stop_trigger_does_not_stop_the_next_submission(run: RunPaths) -> None:
    begin(run)
    run.triggers.mkdir()
    (run.triggers / "stop").touch()
    StopRecord(reason="trigger", step=5, attempt=0).save(run.stopped)
    assert end(run, 0).action is Action.done
    assert not (run.triggers / "stop").exists()


def test_blame_is_written_for_the_next_attempt_and_the_admin(run: RunPaths) -> None:
    for number in range(2):
        begin(run, restarts=number)
        crash(run, number, 1, signature=f"Boom {number}", message="CUDA error: uncorrectable ECC error")
        end(run, number)
    known = attempts.load_suspects(run)
    assert known.blamed == {"node2": ["attempt 0: rank_crash", "attempt 1: rank_crash"]} and list(known.excluded) == ["node2"]


def test_memory_is_plain_json(run: RunPaths) -> None:
    begin(run)
    end(run, 0)
    plain = {"first_attempt": 0, "job": "1", "longest": {}, "relaunches": 0, "signature": "", "streak": {"launch_failure": 1}, "successor": ""}
    assert json.loads(run.state.read_text()) == plain
