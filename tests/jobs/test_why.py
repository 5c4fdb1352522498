"""`cpt why`: the last failure, its first error, what was done about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cpt.core.attempts import Action, Ending
from cpt.core.errors import UserError
from jobs import why
from slurm import client, first_error
from slurm.client import Job, PastJob
from tests.jobs.history import History

Ask = Callable[..., str]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    monkeypatch.setattr(client, "jobs", lambda cluster, name="", job_id="": [])
    monkeypatch.setattr(client, "sacct_history", lambda cluster, job: [])

    def call(*arguments: object) -> str:
        assert why.main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return call


def crashed(root: Path) -> History:
    story = History(root, ago=1000)
    story.begin(1)
    story.train(23)
    story.beats()
    story.crash(17)
    story.end(Ending.rank_crash, Action.relaunch, "rank 17 on node3 crashed, checkpoint 0 -> 20", nodes=["node3"], rank=17)
    return story


def test_the_failure_its_cause_and_its_cure(tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    story = crashed(tmp_path)
    first_error.write(story.run, 0)
    story.begin(2, path="relaunch", nodes=["node1", "node2", "node4", "node5"], spares=[], start=9)
    story.train(40)
    story.suspect({"node9": "preflight: clock"}, {"node3": ["attempt 0: rank_crash"]})
    monkeypatch.setattr(client, "jobs", lambda cluster, name="", job_id="": [Job(id="4711", state="RUNNING", reason="None", nodes="")])
    said = ask(story.run.root)
    for fact in (
        "tiny-0123456789: running\nhealthy now, step 60 of 1,000; the last failure was:",
        "attempt 0 on node[1-4] ended after 2m 1s",
        ": rank_crash\n  rank 17 on node3 crashed",
        "blamed: node3",
        "\n  rank 17 on node3 at ",
        "  RuntimeError at loop.py:40 in train: CUDA error: an illegal memory access",
        "31 ranks: no last word",
        "what was done: relaunch -> attempt 1 on node[1-2,4-5]\n",
        "from the last step before to its first: 20s; went on from step 20, 3 step(s) computed again",
        "node3: attempt 0: rank_crash\n",
        "node9: preflight: clock -> kept out",
    ):
        assert fact in said


def test_without_a_first_error_file_it_is_found_now(tmp_path: Path, ask: Ask) -> None:
    story = crashed(tmp_path)
    said = ask(story.run.root)
    assert "rank 17 on node3 at " in said and "what was done: relaunch, nothing has followed yet; next: cpt resume" in said
    assert not story.attempt.first_error.exists()


def test_a_run_that_never_failed_says_so_and_shows_its_last_interruption(tmp_path: Path, ask: Ask) -> None:
    story = History(tmp_path, ago=5000)
    story.begin(1)
    story.train(25)
    story.end(Ending.preempted, Action.requeue, "told to stop")
    story.begin(60, path="requeue")
    story.train(980)
    story.finish()
    said = ask(story.run.root)
    assert "done, finished at step 1000\nno attempt of 2 has failed" in said
    assert "the last interruption: preempted, attempt 1 came by requeue" in said and "computed again" in said


def test_an_attempt_by_number_and_one_that_is_not_there(tmp_path: Path, ask: Ask) -> None:
    story = crashed(tmp_path)
    story.begin(2, path="requeue")
    story.train(40)
    story.end(Ending.hang, Action.hold, "no progress for 600 s")
    assert "attempt 1 on" in ask(story.run.root) and "hang" in ask(story.run.root)
    first = ask(story.run.root, "--attempt", 0)
    assert "attempt 0 on" in first and "what was done: relaunch -> attempt 1 on node[1-4], by requeue" in first
    with pytest.raises(UserError, match="attempts of this run: 0, 1"):
        why.main([str(story.run.root), "--attempt", "7"])


def test_an_attempt_that_left_no_word_is_a_failure(tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    story = History(tmp_path, ago=90_000)
    story.begin(1)
    story.train(20)
    cancelled = PastJob(id="4711", state="CANCELLED by 1000", submitted=0, started=0, ended=0, seconds=100, nodes=5)
    monkeypatch.setattr(client, "sacct_history", lambda cluster, job: [cancelled])
    assert "attempt 0 on node[1-4] never said how it ended; SLURM's accounts say CANCELLED by 1000" in ask(story.run.root)
