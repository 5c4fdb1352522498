"""The batch script on a real SLURM, where nothing breaks: its logs, its last word, what a human may do with it afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cpt.core.attempts import Action, Ending
from slurm import client, submit
from tests.slurm.conftest import Submitted, behave, wait_for

pytestmark = pytest.mark.slurm

Start = Callable[..., Submitted]


def again(job: Submitted) -> Submitted:
    """The same script, handed to sbatch once more."""
    return Submitted(job.config, job.run, client.submit(job.config.cluster, job.run.script))


@pytest.fixture(scope="module")
def runs(start: Start) -> dict[str, Submitted]:
    """All at once: most of their time is SLURM's own."""
    twice = start("twice", steps=50)
    return {
        "twice": twice,
        "twice, the second": again(twice),
        "straight": start("straight", steps=5),
        "fatal": start("fatal", steps=12, fault={"rank": 1, "step": 8, "kind": "fatal"}),
        # Alone, so that no sibling says twice that it lost its peer, which would be the same crash twice.
        "stuck": start("stuck", ["slurm.max_no_progress=2", "slurm.nodes=1", "slurm.tasks_per_node=1"], steps=12, fault={"rank": 0, "step": 2, "kind": "kill"}),
    }


def test_two_submissions_of_one_directory_never_run_together(runs: dict[str, Submitted]) -> None:
    """First, while it runs."""
    first, second = runs["twice"], runs["twice, the second"]
    wait_for(first.begins, "the first to begin")
    assert {job.id: job.state for job in client.jobs(first.config.cluster, job_id=second.job)} == {second.job: "PENDING"}
    assert submit.queued(first.config, first.run).count("job ") == 2
    assert (first.ended(), second.ended()) == ("COMPLETED", "COMPLETED")
    assert len(first.begins()) == 1 and "nothing to do" in first.log()


def test_a_run_that_finishes_is_completed_with_a_log_of_each_rank(runs: dict[str, Submitted]) -> None:
    job = runs["straight"]
    assert job.ended() == "COMPLETED", job.log()
    assert [(end.ending, end.action) for end in job.ends()] == [(Ending.done, Action.done)]
    (begin,) = job.begins()
    assert (begin.job, begin.path, begin.restarts, len(begin.nodes)) == (job.job, "submit", 0, 2)
    logs = [job.run.attempt(0).log(rank).read_text() for rank in range(4)]
    assert all(f"rank {rank} of 4 on {begin.nodes[rank // 2]} via {begin.nodes[0]}:" in log for rank, log in enumerate(logs))


def test_the_script_of_a_finished_run_says_so(runs: dict[str, Submitted]) -> None:
    job = runs["straight"]
    job.ended()
    assert again(job).ended() == "COMPLETED"
    assert "finished at step 5; nothing to do" in job.log()
    assert len(job.begins()) == 1


def test_a_fatal_rank_is_never_tried_again(runs: dict[str, Submitted]) -> None:
    job = runs["fatal"]
    assert job.ended() == "FAILED"
    assert [(end.ending, end.action, end.step) for end in job.ends()] == [(Ending.fatal, Action.fail, 5)]
    assert job.begins()[0].restarts == 0


def test_no_progress_is_held_and_a_human_may_submit_again(runs: dict[str, Submitted]) -> None:
    job = runs["stuck"]
    assert job.ended() == "FAILED"
    assert [(end.ending, end.action) for end in job.ends()] == [(Ending.rank_crash, Action.relaunch), (Ending.no_progress, Action.hold)]
    assert "slurm.max_no_progress" in job.log()
    behave(job.run, steps=4)
    assert again(job).ended() == "COMPLETED", job.log()
    assert job.begins()[-1].job != job.job and job.ends()[-1].ending is Ending.done
