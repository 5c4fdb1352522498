"""The batch script on a real SLURM: what is requeued, what is not, and from where it goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from slurm import client, submit
from slurm.devcluster import DevCluster
from tests.slurm.conftest import Submitted, wait_for

pytestmark = pytest.mark.slurm

Start = Callable[..., Submitted]


@pytest.fixture(scope="module")
def runs(start: Start) -> dict[str, Submitted]:
    """All at once: most of their time is SLURM's pause before a requeued job."""
    return {
        "straight": start("straight", steps=5),
        "progress": start("progress", steps=12, crash={"rank": 3, "step": 8, "kind": "exit", "attempts": 1}),
        "killed": start("killed", steps=12, crash={"rank": 2, "step": 8, "kind": "kill", "attempts": 1}),
        "deterministic": start("deterministic", steps=12, crash={"rank": 1, "step": 3, "kind": "exit"}),
        "fatal": start("fatal", steps=12, crash={"rank": 1, "step": 8, "kind": "fatal"}),
        "stuck": start("stuck", ["slurm.max_no_progress=2"], steps=12, crash={"rank": 0, "step": 2, "kind": "kill"}),
        # SLURM looks at time limits every half minute, so the signal comes 10 to 40 seconds after the start.
        "limit": start("limit", ["slurm.time=1", "slurm.signal_lead=50"], steps=260, save_every=1000, seconds=0.2),
    }


def test_a_run_that_finishes_is_completed(runs: dict[str, Submitted]) -> None:
    run = runs["straight"]
    assert run.ended() == "COMPLETED"
    assert [end.classification for end in run.ends()] == ["done"]
    assert run.begins()[0].nodes != [] and len(run.begins()[0].nodes) == 2
    logs = "".join(run.run.attempt(0).log(rank).read_text() for rank in range(4))
    assert all(f"rank {rank} of 4" in logs for rank in range(4))


def test_the_script_of_a_finished_run_says_so(runs: dict[str, Submitted]) -> None:
    run = runs["straight"]
    run.ended()
    again = Submitted(run.config, run.run, client.submit(run.config.cluster, run.run.script))
    assert again.ended() == "COMPLETED"
    assert "finished at step 5; nothing to do" in again.log()
    assert len(run.begins()) == 1


@pytest.mark.parametrize("name", ["progress", "killed"])
def test_a_crash_after_a_checkpoint_is_requeued_and_resumes(runs: dict[str, Submitted], name: str) -> None:
    run = runs[name]
    assert run.ended() == "COMPLETED", run.log()
    assert [(end.classification, end.action) for end in run.ends()] == [("crash", "requeue"), ("done", "done")]
    assert [begin.step for begin in run.begins()] == [0, 5]
    assert [begin.restarts for begin in run.begins()] == [0, 1]
    assert {begin.job for begin in run.begins()} == {run.job}
    assert "from 5" in run.run.attempt(1).log(0).read_text()


def test_the_same_crash_twice_without_progress_fails(runs: dict[str, Submitted]) -> None:
    run = runs["deterministic"]
    assert run.ended() == "FAILED"
    assert [(end.classification, end.action) for end in run.ends()] == [("crash", "requeue"), ("repeated_crash", "fail")]
    assert "Boom" in run.ends()[-1].message


def test_a_fatal_rank_is_never_requeued(runs: dict[str, Submitted]) -> None:
    run = runs["fatal"]
    assert run.ended() == "FAILED"
    assert [(end.classification, end.action, end.step) for end in run.ends()] == [("fatal", "fail", 5)]


def test_ends_without_progress_are_held_for_a_human_who_may_submit_again(runs: dict[str, Submitted]) -> None:
    run = runs["stuck"]
    assert run.ended() == "FAILED"
    assert [end.action for end in run.ends()] == ["requeue", "hold"]
    assert "slurm.max_no_progress" in run.log()
    (run.run.root / "behave.json").write_text('{"steps": 4}')
    again = Submitted(run.config, run.run, client.submit(run.config.cluster, run.run.script))
    assert again.ended() == "COMPLETED", again.log()


def test_before_the_time_limit_ranks_save_and_the_job_is_requeued(runs: dict[str, Submitted]) -> None:
    run = runs["limit"]
    wait_for(lambda: len(run.ends()) >= 1, "the first stop", 120)
    first = run.ends()[0]
    assert (first.classification, first.action) == ("signal", "requeue")
    assert 0 < first.step < 260, "saved outside its own rhythm, because it was told to"
    assert run.ended() == "COMPLETED", run.log()
    assert run.begins()[1].step == first.step


def test_two_submissions_of_one_directory_never_run_together(start: Start) -> None:
    first = start("twice", steps=25)
    second = Submitted(first.config, first.run, client.submit(first.config.cluster, first.run.script))
    wait_for(lambda: first.begins(), "the first to begin")
    assert {job.id: job.state for job in client.jobs(first.config.cluster, job_id=second.job)} == {second.job: "PENDING"}
    assert submit.queued(first.config, first.run).count("job ") == 2
    assert (first.ended(), second.ended()) == ("COMPLETED", "COMPLETED")
    assert len(first.begins()) == 1


def test_a_run_survives_the_power_loss_of_a_node(start: Start, cluster: DevCluster) -> None:
    run = start("power", steps=20, save_every=3, seconds=0.2)
    wait_for(lambda: run.run.latest.is_file(), "a checkpoint")
    lost = run.begins()[0].nodes[1]
    try:
        cluster.kill(lost)
        wait_for(lambda: len(run.begins()) == 2, f"the second attempt: {run.log()}")
        assert lost not in run.begins()[1].nodes
        assert run.ends()[0].action == "requeue"
        assert run.ends()[0].classification == "lost" and lost in run.ends()[0].message
        assert run.begins()[1].step >= 3
        assert run.begins()[1].job == run.job
        assert run.ended() == "COMPLETED", run.log()
    finally:
        cluster.up(lost)
    wait_for(lambda: lost in cluster.idle(), f"{lost} to come back")


def test_a_run_survives_the_power_loss_of_its_first_node(start: Start, cluster: DevCluster) -> None:
    """The batch script dies with it, so nobody is left to write how the attempt ended: the next one does."""
    run = start("head", steps=20, save_every=3, seconds=0.2)
    wait_for(lambda: run.run.latest.is_file(), "a checkpoint")
    lost = run.begins()[0].nodes[0]
    try:
        cluster.kill(lost)
        assert run.ended() == "COMPLETED", run.log()
    finally:
        cluster.up(lost)
    first, second = run.ends()[0], run.begins()[1]
    assert (first.classification, first.action, first.code) == ("lost", "requeue", -1)
    assert lost in first.message and lost not in second.nodes and second.step == first.step >= 3
    assert first.time <= second.time
    wait_for(lambda: lost in cluster.idle(), f"{lost} to come back")
