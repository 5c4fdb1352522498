"""The fault table: every row is played on a real SLURM with light ranks. `make drill` plays them one after the other and keeps the times."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from cpt.core.attempts import Action, Ending, Suspects
from slurm import client
from slurm.devcluster import DevCluster
from slurm.steps import py_spy
from tests.slurm.conftest import Submitted, behave, wait_for
from tests.slurm.drill_table import write_table
from tests.slurm.faults import FAULTS, SAVE_EVERY, STEPS, Fault, Outcome, play
from tests.slurm.stand_in import following

pytestmark = pytest.mark.slurm

TABLE = os.environ.get("DRILL_TABLE")
"""Where `make drill` wants the table; then faults are played one at a time, so that none waits for another's ranks."""

ELSEWHERE: list[Outcome] = []
"""Of faults that strike before a run is under way, by tests of their own."""


@pytest.fixture(scope="module")
def outcomes(start: Callable[..., Submitted], cluster: DevCluster) -> Iterator[dict[str, Future[Outcome]]]:
    """All at once, a few at a time: most of their time is SLURM's own waiting. What disturbs everybody comes last, alone."""
    alone = "slurmctld restarted"
    with ThreadPoolExecutor(1 if TABLE else 5) as pool, ThreadPoolExecutor(1) as last:
        played = {fault.name: pool.submit(play, fault, start, cluster) for fault in FAULTS if fault.name != alone}

        def when_all_is_quiet(fault: Fault) -> Outcome:
            for other in played.values():
                other.exception()
            return play(fault, start, cluster)

        every = played | {fault.name: last.submit(when_all_is_quiet, fault) for fault in FAULTS if fault.name == alone}
        yield every
    if TABLE:
        write_table(Path(TABLE), "light", [*(future.result() for future in every.values() if not future.exception()), *ELSEWHERE])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_fault(fault: Fault, outcomes: dict[str, Future[Outcome]]) -> None:
    outcome = outcomes[fault.name].result()
    job, log = outcome.job, outcome.job.log()
    assert outcome.state == fault.final, log
    ends = job.ends()
    if fault.expected is None:
        assert [(end.ending, end.action) for end in ends] == [(Ending.done, Action.done)], log
        return
    assert (ends[0].ending, ends[0].action) == fault.expected, log
    if outcome.steps_lost is not None:
        interval = fault.behave.get("save_every", SAVE_EVERY)
        assert 0 <= outcome.steps_lost < interval, "never more than one checkpoint interval"
    if fault.final == "COMPLETED":
        assert ends[-1].ending is Ending.done
        last = job.rows(job.begins()[-1].number)[-1]
        assert (last["step"], last["values"]["train/loss"]) == uninterrupted(fault.behave.get("steps", STEPS)), "equal to a run that nothing happened to"
        assert all(begin.path == end.action for begin, end in zip(job.begins()[1:], ends, strict=False)), "what was decided is what was done"


def uninterrupted(steps: int) -> tuple[int, float]:
    loss = 1.0
    for step in range(1, steps + 1):
        loss = following(step, loss)
    return steps, loss


def outcome_of(outcomes: dict[str, Future[Outcome]], name: str) -> Submitted:
    return outcomes[name].result().job


def test_the_dead_node_is_named_and_left_out(outcomes: dict[str, Future[Outcome]]) -> None:
    for name in ("power loss of a worker node, spare", "link cut, spare", "power loss of a worker node, no spare"):
        job = outcome_of(outcomes, name)
        lost = job.begins()[0].nodes[1]
        assert lost in job.ends()[0].message and job.ends()[0].nodes == [lost]
        assert lost not in job.begins()[1].nodes


def test_a_hang_names_the_rank_and_dumps_the_stacks_of_the_others(outcomes: dict[str, Future[Outcome]]) -> None:
    job = outcome_of(outcomes, "rank SIGSTOP (hang)")
    end = job.ends()[0]
    assert end.rank == 3 and end.nodes == [job.begins()[0].nodes[1]] and "silent: rank 3 on" in end.message
    if py_spy():
        assert "stand_in.py" in job.run.attempt(0).stack(3).read_text(), "a stopped process cannot say where it is; it is looked at"
    assert "most recent call first" in job.run.attempt(0).log(0).read_text() and "in hear" in job.run.attempt(0).log(0).read_text()


def test_a_deterministic_crash_never_loops(outcomes: dict[str, Future[Outcome]]) -> None:
    ends = outcome_of(outcomes, "deterministic crash").ends()
    assert [end.action for end in ends] == [Action.relaunch, Action.relaunch, Action.fail], "the first left a checkpoint, the third repeats the second"
    assert "the same crash twice" in ends[-1].message and "Boom" in ends[-1].message


def test_relaunches_stay_in_the_allocation(outcomes: dict[str, Future[Outcome]]) -> None:
    for name in ("rank exit 1", "rank SIGKILL", "rank SIGSTOP (hang)", "power loss of a worker node, spare", "link cut, spare"):
        assert [begin.restarts for begin in outcome_of(outcomes, name).begins()] == [0, 0], name


def test_nothing_healthy_is_drained(outcomes: dict[str, Future[Outcome]], cluster: DevCluster) -> None:
    for future in outcomes.values():
        future.result()
    wait_for(lambda: not [node for node, state in cluster.status().items() if "drain" in state or "down" in state], f"all nodes: {cluster.status()}")


def test_after_a_full_disk_the_same_script_goes_on(outcomes: dict[str, Future[Outcome]]) -> None:
    job = outcome_of(outcomes, "disk full during a save")
    assert "free space" in job.ends()[0].message.lower()
    again = Submitted(job.config, job.run, client.submit(job.config.cluster, job.run.script))
    assert again.ended() == "COMPLETED"
    assert again.begins()[1].step == SAVE_EVERY


def test_a_node_whose_prolog_fails_is_drained_and_the_run_starts_elsewhere(start: Callable[..., Submitted], cluster: DevCluster) -> None:
    """Of three nodes, all others kept out by name, the job needs two; those that SLURM takes first are found by asking it once."""
    wait_for(lambda: len(cluster.idle()) >= 3, "three free nodes")
    three = cluster.idle()[:3]
    rest = [node for node in cluster.layout.names if node not in three]
    only = [f"slurm.exclude=[{','.join(rest)}]", "slurm.preflight=false"]
    before = start("before_prolog", only, steps=1)
    assert before.ended() == "COMPLETED"
    bad = before.begins()[0].nodes[1]
    cluster.bad(bad)
    try:
        submitted = time.time()
        job = start("prolog", only, steps=10)
        assert job.ended() == "COMPLETED", job.log()
        assert bad not in job.begins()[-1].nodes and len(job.ends()) == 1
        assert "drain" in cluster.status()[bad]
        prolog = Fault(name="prolog failure", expected=None, says="the node is drained, the run starts on others; counted from the submission")
        ELSEWHERE.append(
            Outcome(prolog, job, "COMPLETED", SAVE_EVERY, steps_lost=0, seconds=job.rows(0)[0]["ts_ms"] / 1000 - submitted, path=job.begins()[-1].path)
        )
    finally:
        cluster.good(bad)


def test_a_colleague_can_ask_for_a_checkpoint_and_for_a_stop(start: Callable[..., Submitted]) -> None:
    job = start("triggers", steps=1000, save_every=500)
    wait_for(lambda: len(job.rows(0)) > 3, "some steps")
    job.run.triggers.mkdir()
    (job.run.triggers / "save").touch()
    wait_for(job.run.latest.is_file, "the checkpoint that was asked for")
    (job.run.triggers / "stop").touch()
    assert job.ended() == "COMPLETED"
    assert [(end.ending, end.action) for end in job.ends()] == [(Ending.stopped, Action.done)]
    assert not (job.run.triggers / "stop").exists(), "obeyed once"
    behave(job.run, steps=job.ends()[0].step + 3)
    again = Submitted(job.config, job.run, client.submit(job.config.cluster, job.run.script))
    assert again.ended() == "COMPLETED" and again.begins()[1].step == job.ends()[0].step


def test_what_is_cancelled_does_not_come_back(start: Callable[..., Submitted]) -> None:
    """SLURM would requeue even a job that its user has just cancelled."""
    job = start("cancelled", steps=1000)
    wait_for(lambda: len(job.rows(0)) > 3, "some steps")
    subprocess.run(["scancel", job.job], env=client.environment(job.config.cluster), check=True)
    assert job.ended() == "CANCELLED", job.log()
    wait_for(job.ends, "the verdict")
    assert [(end.ending, end.action) for end in job.ends()] == [(Ending.stopped, Action.done)]
    assert "scancel" in job.ends()[0].message


@pytest.fixture(scope="module")
def runs(start: Callable[..., Submitted]) -> dict[str, Submitted]:
    """Three that take their time, side by side."""
    sick = {"fault": {"rank": 3, "after": 8, "kind": "stop", "attempts": 2}}
    return {
        "spare": start("sick_spare", ["slurm.hang_seconds=4", "slurm.spare_nodes=1"], **sick),
        "none": start("sick_none", ["slurm.hang_seconds=4"], **sick),
        "chain": start("chain", ["slurm.requeue=false", "slurm.time=1", "slurm.signal_lead=50"], steps=130, save_every=1000),
    }


@pytest.mark.parametrize(("name", "path"), [("spare", "relaunch"), ("none", "chain")])
def test_a_node_that_fails_twice_is_kept_out(runs: dict[str, Submitted], name: str, path: str) -> None:
    """Rank 3 stops answering twice on the same node. SLURM lets nobody name nodes to avoid in a requeue, so without a spare it is a new job."""
    job = runs[name]
    wait_for(lambda: len(job.ends()) == 3 and job.ends()[-1].ending is Ending.done, f"the third attempt: {job.log()}")
    sick = job.begins()[0].nodes[1]
    assert [begin.path for begin in job.begins()] == ["submit", "relaunch", path]
    assert [end.nodes for end in job.ends()] == [[sick], [sick], []]
    assert sick in job.begins()[1].nodes and sick not in job.begins()[2].nodes
    suspects = Suspects.load(job.run.suspects)
    assert list(suspects.excluded) == [sick] and len(suspects.blamed[sick]) == 2


def test_where_requeue_is_not_allowed_the_script_submits_itself(runs: dict[str, Submitted]) -> None:
    job = runs["chain"]
    wait_for(lambda: job.ends() and job.ends()[-1].ending is Ending.done, f"the end of the chain: {job.log()}")
    assert [begin.path for begin in job.begins()] == ["submit", *["chain"] * (len(job.begins()) - 1)] and len(job.begins()) > 1
    assert len({begin.job for begin in job.begins()}) == len(job.begins()), "each a job of its own"
    assert {end.ending for end in job.ends()[:-1]} == {Ending.time_limit}
    assert job.ended() == "COMPLETED"
