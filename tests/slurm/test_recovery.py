"""What follows an attempt: a table over every ending, the budgets, the blame, and that nothing loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt.config.running import SlurmConfig
from cpt.core.attempts import Action, Ending, RankRecord, StopRecord, Suspects
from slurm.recovery import POLICIES, Evidence, RunState, Verdict, classify, decide, suspect
from slurm.watch import Trouble

LIMITS = SlurmConfig(max_attempts=100, max_no_progress=3)
PATIENT = SlurmConfig(max_attempts=100, max_no_progress=100)


def rank(outcome: str = "crash", signature: str = "Boom", number: int = 3, step: int = 4, message: str = "why") -> RankRecord:
    return RankRecord(rank=number, host="node2", outcome=outcome, step=step, signature=signature, message=message)


def stop(reason: str) -> StopRecord:
    return StopRecord(reason=reason, step=7, attempt=0)


def trouble(ending: Ending, nodes: Sequence[str] = ("node2",), ranks: Sequence[int] = (3,)) -> Trouble:
    return Trouble(ending=ending, nodes=nodes, ranks=ranks, message=f"seen: {ending}")


def evidence(**known: Any) -> Evidence:
    """An attempt without progress on nodes of which enough are left."""
    plain: dict[str, Any] = {"attempt": 0, "code": 143, "step_before": 5, "step_now": 5, "room": True}
    return Evidence(**(plain | known))


FRESH = RunState(job="1")
SEEN = RunState(job="1", streak={"rank_crash": 1}, relaunches=1, signature="Boom after step 4")

TABLE: list[tuple[str, Evidence, RunState, Ending, Action, int]] = [
    ("finished", evidence(stop=stop("done"), code=0), FRESH, Ending.done, Action.done, 0),
    ("finished, though a rank fell over afterwards", evidence(stop=stop("done"), ranks=[rank()]), SEEN, Ending.done, Action.done, 0),
    ("finished, and told to stop as well", evidence(stop=stop("done"), told=True, cancelled=True), FRESH, Ending.done, Action.done, 0),
    ("somebody touched triggers/stop", evidence(stop=stop("trigger"), step_now=7), FRESH, Ending.stopped, Action.done, 0),
    ("cancelled before it saved", evidence(told=True, cancelled=True), FRESH, Ending.stopped, Action.done, 0),
    ("cancelled and saved", evidence(stop=stop("signal"), told=True, cancelled=True, step_now=7), FRESH, Ending.stopped, Action.done, 0),
    ("preempted, saved", evidence(stop=stop("signal"), told=True, step_now=7), FRESH, Ending.preempted, Action.requeue, 75),
    ("preempted, nothing new to save", evidence(stop=stop("signal"), told=True), FRESH, Ending.preempted, Action.requeue, 75),
    ("preempted, did not save in time", evidence(told=True), FRESH, Ending.preempted, Action.requeue, 75),
    ("time limit, saved", evidence(stop=stop("signal"), told=True, near_limit=True, step_now=7), FRESH, Ending.time_limit, Action.requeue, 75),
    ("own deadline, at a site that sends no signal", evidence(stop=stop("deadline"), step_now=7), FRESH, Ending.time_limit, Action.requeue, 75),
    ("time limit, did not save in time", evidence(told=True, near_limit=True), FRESH, Ending.time_limit, Action.requeue, 75),
    ("an update that no setting lets pass", evidence(stop=stop("anomaly"), code=0), FRESH, Ending.anomaly, Action.hold, 80),
    ("the same, with a newer checkpoint", evidence(stop=stop("anomaly"), code=0, step_now=7), SEEN, Ending.anomaly, Action.hold, 80),
    ("the same, while SLURM wanted the nodes", evidence(stop=stop("anomaly"), told=True), FRESH, Ending.anomaly, Action.hold, 80),
    ("power loss", evidence(lost_nodes=["node2"]), FRESH, Ending.node_lost, Action.relaunch, 1),
    ("power loss, and the others lost their peer", evidence(lost_nodes=["node2"], ranks=[rank(number=0)]), SEEN, Ending.node_lost, Action.relaunch, 1),
    ("a silent node", evidence(trouble=trouble(Ending.node_lost)), FRESH, Ending.node_lost, Action.relaunch, 1),
    ("no rank said a word", evidence(beaten=False), FRESH, Ending.launch_failure, Action.relaunch, 1),
    ("too few healthy nodes to start on", evidence(trouble=trouble(Ending.launch_failure), room=False), FRESH, Ending.launch_failure, Action.requeue, 75),
    ("crash", evidence(ranks=[rank()]), FRESH, Ending.rank_crash, Action.relaunch, 1),
    ("killed without a word", evidence(), FRESH, Ending.rank_crash, Action.relaunch, 1),
    ("ranks outlived the first crash", evidence(ranks=[rank()], trouble=trouble(Ending.rank_crash, (), ())), FRESH, Ending.rank_crash, Action.relaunch, 1),
    ("hang", evidence(trouble=trouble(Ending.hang)), FRESH, Ending.hang, Action.relaunch, 1),
    ("fatal", evidence(ranks=[rank("fatal")]), FRESH, Ending.fatal, Action.fail, 2),
    ("fatal after another rank's crash, in spite of progress", evidence(ranks=[rank(), rank("fatal")], step_now=9), FRESH, Ending.fatal, Action.fail, 2),
    ("the same crash again", evidence(attempt=1, ranks=[rank()]), SEEN, Ending.rank_crash, Action.fail, 1),
    ("the same crash, but with progress between", evidence(attempt=1, ranks=[rank()], step_now=9), SEEN, Ending.rank_crash, Action.relaunch, 1),
    ("the same crash at another step", evidence(attempt=1, ranks=[rank(step=3)]), SEEN, Ending.rank_crash, Action.relaunch, 1),
    ("another crash", evidence(attempt=1, ranks=[rank(signature="Bang")]), SEEN, Ending.rank_crash, Action.relaunch, 1),
    ("too many attempts, in spite of progress", evidence(attempt=99, step_now=9), FRESH, Ending.no_progress, Action.hold, 80),
    ("attempts of an earlier job do not count", evidence(attempt=99, step_now=9), RunState(first_attempt=50), Ending.rank_crash, Action.relaunch, 1),
]


@pytest.mark.parametrize(("what", "found", "state", "ending", "action", "code"), TABLE, ids=[row[0] for row in TABLE])
def test_verdicts(what: str, found: Evidence, state: RunState, ending: Ending, action: Action, code: int) -> None:
    verdict, _ = decide(found, state, LIMITS)
    assert (verdict.ending, verdict.action) == (ending, action)
    if action is not Action.relaunch:  # after which nothing exits
        assert verdict.exit_code == code


def test_the_table_has_every_ending() -> None:
    assert {ending for *_, ending, _, _ in TABLE} == set(Ending)
    assert set(POLICIES) == set(Ending) - {Ending.no_progress}


WORDS = [
    (evidence(stop=stop("done")), "finished at step 7"),
    (evidence(stop=stop("trigger"), step_now=7), "stopped on request, checkpoint 5 -> 7; submit it again to go on"),
    (evidence(told=True, cancelled=True), "cancelled with scancel, checkpoint 5 -> 5; submit it again to go on"),
    (evidence(stop=stop("signal"), step_now=7), "told to stop (signal), saved at step 7, checkpoint 5 -> 7"),
    (evidence(told=True), "told to stop, but did not save in time (srun returned 143), checkpoint 5 -> 5"),
    (evidence(lost_nodes=["node2", "node3"]), "lost node2 node3, checkpoint 5 -> 5"),
    (evidence(trouble=trouble(Ending.hang)), "seen: hang, checkpoint 5 -> 5"),
    (evidence(beaten=False, code=233), "no rank said a word (srun returned 233), see job.log, checkpoint 5 -> 5"),
    (evidence(ranks=[rank(), rank(number=0)]), "rank 3 on node2: Boom why, checkpoint 5 -> 5"),
    (evidence(code=137), "a rank died without a word, killed or out of memory (srun returned 137), checkpoint 5 -> 5"),
    (evidence(attempt=99, code=137), "100 attempts (slurm.max_attempts); a rank died without a word"),
]


@pytest.mark.parametrize(("found", "says"), WORDS, ids=[says[:40] for _, says in WORDS])
def test_one_sentence_for_a_human(found: Evidence, says: str) -> None:
    assert decide(found, FRESH, LIMITS)[0].message.startswith(says)


def repeated(found: Evidence, config: SlurmConfig, most: int = 50) -> list[Verdict]:
    """The same thing again and again, until it is not tried again."""
    state, verdicts = FRESH, []
    for attempt in range(most):
        verdict, state = decide(dataclasses.replace(found, attempt=attempt), state, config)
        verdicts.append(verdict)
        if verdict.action in (Action.done, Action.fail, Action.hold):
            break
    return verdicts


BUDGETS = [
    (Ending.time_limit, evidence(told=True, near_limit=True), 2),
    (Ending.node_lost, evidence(lost_nodes=["node2"]), 5),
    (Ending.launch_failure, evidence(beaten=False), 3),
    (Ending.rank_crash, evidence(), 3),
    (Ending.hang, evidence(trouble=trouble(Ending.hang)), 2),
]


@pytest.mark.parametrize(("ending", "found", "budget"), BUDGETS, ids=[row[0] for row in BUDGETS])
def test_a_budget_in_a_row_without_progress_holds_the_run(ending: Ending, found: Evidence, budget: int) -> None:
    *before, last = repeated(found, PATIENT)
    assert [verdict.ending for verdict in before] == [ending] * (budget - 1)
    assert (last.ending, last.action) == (Ending.no_progress, Action.hold)
    assert f"{budget} x {ending}" in last.message


def test_preemption_never_counts() -> None:
    for found in (evidence(told=True), evidence(told=True, stop=stop("signal"))):
        assert {verdict.action for verdict in repeated(found, LIMITS)} == {Action.requeue}
    _, state = decide(evidence(told=True), RunState(streak={"rank_crash": 1, "hang": 1}), LIMITS)
    assert decide(evidence(told=True), state, LIMITS)[0].action is Action.requeue


def test_attempts_without_progress_are_counted_over_all_endings_but_the_nodes_own() -> None:
    worried = RunState(streak={"rank_crash": 1, "launch_failure": 1, "node_lost": 3, "preempted": 9})
    assert decide(evidence(lost_nodes=["node2"]), worried, LIMITS)[0].action is Action.relaunch
    verdict, _ = decide(evidence(trouble=trouble(Ending.hang)), worried, LIMITS)
    assert (verdict.ending, verdict.action) == (Ending.no_progress, Action.hold) and "slurm.max_no_progress" in verdict.message


def test_progress_forgives_everything() -> None:
    worried = RunState(job="1", first_attempt=2, streak={"rank_crash": 2, "node_lost": 4}, relaunches=1, signature="Boom after step 4", longest={"step": 2.0})
    _, state = decide(evidence(attempt=3, ranks=[rank()], step_now=6), worried, LIMITS)
    assert state == RunState(job="1", first_attempt=2, relaunches=1, longest={"step": 2.0}), "but for the relaunch that now follows"


def test_a_hundred_returns_with_progress_are_fine() -> None:
    state = FRESH
    for attempt in range(99):
        verdict, state = decide(evidence(attempt=attempt, step_before=attempt, step_now=attempt + 1, ranks=[rank()]), state, LIMITS)
        assert verdict.action is Action.relaunch


CRASH = evidence(ranks=[rank()])


@pytest.mark.parametrize(
    ("found", "config"),
    [
        (dataclasses.replace(CRASH, room=False), LIMITS),
        (dataclasses.replace(CRASH, told=True), LIMITS),
        (CRASH, SlurmConfig(relaunch=False)),
    ],
    ids=["no room", "told to stop", "not wanted"],
)
def test_a_relaunch_is_not_for(found: Evidence, config: SlurmConfig) -> None:
    assert decide(found, FRESH, config)[0].action is Action.requeue


def test_after_two_relaunches_in_a_row_the_queue_is_asked_for_other_nodes() -> None:
    actions = [verdict.action for verdict in repeated(evidence(lost_nodes=["node2"]), PATIENT)]
    assert actions == [Action.relaunch, Action.relaunch, Action.requeue, Action.relaunch, Action.hold]


def blamed(found: Evidence) -> Sequence[str]:
    return decide(found, FRESH, LIMITS)[0].nodes


@pytest.mark.parametrize("message", ["NCCL error: remote process exited", "CUDA error: an illegal memory access", "[Errno 5] Input/output error", "Xid 79"])
def test_what_smells_of_hardware_blames_its_node(message: str) -> None:
    assert blamed(evidence(ranks=[rank(message=message), rank(number=0)])) == ["node2"]


def test_a_programs_own_crash_blames_nobody() -> None:
    assert blamed(evidence(ranks=[rank(signature="KeyError at loop.py:40 in train", message="'loss'")])) == []
    assert blamed(evidence()) == []
    assert blamed(evidence(ranks=[rank("fatal", message="NCCL is not installed")])) == []


def test_the_lost_and_the_silent_are_blamed_and_named() -> None:
    lost, _ = decide(evidence(lost_nodes=["node4"], ranks=[rank(message="NCCL error")]), FRESH, LIMITS)
    assert (lost.nodes, lost.rank) == (["node4"], -1), "the others only wrote down that they lost it"
    hang, _ = decide(evidence(trouble=trouble(Ending.hang, ["node2"], [17, 18])), FRESH, LIMITS)
    assert (hang.nodes, hang.rank) == (["node2"], 17)
    assert decide(CRASH, FRESH, LIMITS)[0].rank == 3


def test_who_is_blamed_twice_is_kept_out() -> None:
    verdict = Verdict(ending=Ending.node_lost, action=Action.relaunch, message="", nodes=["node2", "node3"])
    once = suspect(Suspects(excluded={"node9": "preflight: no GPUs"}), verdict, 0)
    assert once.blamed == {"node2": ["attempt 0: node_lost"], "node3": ["attempt 0: node_lost"]} and set(once.excluded) == {"node9"}
    twice = suspect(once, dataclasses.replace(verdict, ending=Ending.hang, nodes=["node3"]), 4)
    assert twice.excluded == {"node9": "preflight: no GPUs", "node3": "failed 2 times: attempt 0: node_lost; attempt 4: hang"}
    assert once.blamed["node3"] == ["attempt 0: node_lost"], "what was known is not changed in place"


RANKS = st.lists(
    st.builds(rank, outcome=st.sampled_from(["crash", "fatal"]), signature=st.sampled_from(["Boom", "Bang", ""]), step=st.integers(0, 3)), max_size=2
)
ANYTHING = st.builds(
    evidence,
    stop=st.sampled_from([None, None, stop("signal")]),
    ranks=RANKS,
    beaten=st.booleans(),
    lost_nodes=st.sampled_from([[], ["node2"]]),
    trouble=st.sampled_from([None, *(trouble(ending) for ending in (Ending.node_lost, Ending.hang, Ending.rank_crash, Ending.launch_failure))]),
    told=st.booleans(),
    near_limit=st.booleans(),
    room=st.booleans(),
)


@given(st.lists(ANYTHING, min_size=8, max_size=16))
def test_without_progress_every_run_comes_to_an_end(story: list[Evidence]) -> None:
    """After 4 lost nodes and 2 others the next is the last. Whoever was preempted, or saved when told to, is not counted."""
    state, counted = FRESH, 0
    for attempt, found in enumerate(story):
        verdict, state = decide(dataclasses.replace(found, attempt=attempt), state, LIMITS)
        if verdict.action in (Action.done, Action.fail, Action.hold):
            return
        counted += classify(found) is not Ending.preempted
        assert counted <= 6
