"""Seconds by kind: which moment was what, and that none is counted twice or forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt.core.attempts import Action, AttemptBegin, AttemptEnd, Ending
from cpt.tracking.goodput import Goodput, Kind, Lifetime, goodput, node_seconds
from cpt.tracking.journal import EventRow, MetricRow


def begin(number: int, time: float, step: int = 0, path: str = "requeue", nodes: int = 2) -> AttemptBegin:
    names = [f"node{index}" for index in range(nodes)]
    return AttemptBegin(number=number, job="7", restarts=number, nodes=names, step=step, time=time, path=path, spares=["node9"])


def end(number: int, time: float, action: Action = Action.requeue, step: int = 0) -> AttemptEnd:
    return AttemptEnd(number=number, ending=Ending.node_lost, action=action, code=-1, message="", step=step, time=time)


def step(attempt: int, number: int, time: float, seconds: float = 2.0, superseded: bool = False) -> MetricRow:
    values = {"train/loss": 2.0, "train/step_seconds": seconds}
    return MetricRow(ts_ms=round(time * 1000), attempt=attempt, seq=0, step=number, consumed_samples=0, consumed_tokens=0, values=values, superseded=superseded)


def heldout(attempt: int, number: int, time: float) -> MetricRow:
    values = {"heldout/loss/domain": 2.0}
    return MetricRow(ts_ms=round(time * 1000), attempt=attempt, seq=0, step=number, consumed_samples=0, consumed_tokens=0, values=values)


def event(attempt: int, name: str, time: float, **fields: object) -> EventRow:
    return EventRow(ts_ms=round(time * 1000), attempt=attempt, seq=0, name=name, fields=fields)


def seconds(found: Goodput) -> dict[str, float]:
    return {str(kind): found.seconds(kind) for kind in Kind if found.milliseconds[kind]}


def test_every_moment_of_an_interrupted_run_has_a_kind() -> None:
    attempts: list[Lifetime] = [(begin(0, 110.0), end(0, 140.0, step=1)), (begin(1, 160.0, step=1), end(1, 190.0, Action.done, step=3))]
    rows = [heldout(0, 0, 118), step(0, 1, 120), step(0, 2, 125.5, superseded=True), step(1, 2, 170), step(1, 3, 172), heldout(1, 3, 175)]
    events = [
        event(0, "attempt_begin", 112),
        event(0, "parity", 115),
        event(0, "checkpoint_saved", 123.5, step=1, seconds=9.0, waited=3.0),
        event(1, "attempt_begin", 165),
        event(1, "checkpoint_saved", 179, step=3, seconds=9.0, waited=4.0),
        event(1, "stop", 180),
    ]
    found = goodput(attempts, rows, events, submitted=100.0, until=1000.0)
    assert seconds(found) == {
        "queued": 30.0,  # 100-110, 140-160
        "starting": 13.0,  # 110-115, 160-168
        "evaluating": 6.0,  # 115-118, 172-175
        "useful": 6.0,  # steps 1, 2, 3
        "recomputed": 2.0,
        "saving": 7.0,
        "idle": 26.0,  # 120-120.5, 125.5-140, 179-190
    }
    assert found.wall == 90_000
    assert found.share(Kind.useful) == pytest.approx(6 / 90)


def test_a_relaunch_never_waits_in_the_queue() -> None:
    attempts: list[Lifetime] = [(begin(0, 10.0), end(0, 40.0, Action.relaunch, step=2)), (begin(1, 46.0, step=2, path="relaunch"), None)]
    rows = [step(0, 1, 20), step(0, 2, 22), step(0, 3, 24), step(1, 3, 60)]
    found = goodput(attempts, rows, [], submitted=10.0, until=61.0)
    assert seconds(found) == {"starting": 8.0 + 12.0, "useful": 6.0, "recomputed": 2.0, "idle": 16.0 + 6.0 + 1.0}


def test_steps_beyond_the_checkpoint_of_an_ended_attempt_are_lost_before_the_next_one_begins() -> None:
    attempts: list[Lifetime] = [(begin(0, 0.0), end(0, 10.0, step=1))]
    found = goodput(attempts, [step(0, 1, 4), step(0, 2, 6)], [], submitted=0.0, until=30.0)
    assert seconds(found) == {"starting": 2.0, "useful": 2.0, "recomputed": 2.0, "idle": 4.0, "queued": 20.0}


def test_nothing_has_begun_yet() -> None:
    assert seconds(goodput([], [], [], submitted=5.0, until=9.0)) == {"queued": 4.0}
    assert goodput([], [], [], submitted=5.0, until=5.0).share(Kind.queued) == 0.0


def test_time_after_the_last_attempt_counts_only_while_another_may_come() -> None:
    def wall(action: Action) -> float:
        return goodput([(begin(0, 0.0), end(0, 10.0, action))], [], [], submitted=0.0, until=100.0).wall / 1000

    assert {action: wall(action) for action in Action} == {
        Action.done: 10, Action.fail: 10, Action.hold: 10, Action.requeue: 100, Action.relaunch: 100,
    }  # fmt: skip


def test_node_seconds_count_spares_and_the_way_to_a_relaunch_but_not_the_queue() -> None:
    attempts: list[Lifetime] = [
        (begin(0, 0.0), end(0, 10.0, Action.relaunch)),
        (begin(1, 15.0, path="relaunch"), end(1, 20.0)),
        (begin(2, 50.0, nodes=4), None),
    ]
    assert node_seconds(attempts, until=60.0) == 3 * 15 + 3 * 5 + 5 * 10


MOMENT = st.floats(0, 5000, allow_nan=False)
PATHS = st.sampled_from(["submit", "relaunch", "requeue", "chain"])


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Lifetime], list[MetricRow], list[EventRow]]:
    """Attempts with times in any order, as clocks of several nodes may give them."""
    attempts: list[Lifetime] = []
    rows: list[MetricRow] = []
    events: list[EventRow] = []
    for number in range(draw(st.integers(0, 4))):
        ended = end(number, draw(MOMENT), draw(st.sampled_from(Action)), draw(st.integers(0, 5))) if draw(st.booleans()) else None
        attempts.append((begin(number, draw(MOMENT), path=draw(PATHS)), ended))
        for _ in range(draw(st.integers(0, 4))):
            rows.append(step(number, draw(st.integers(1, 9)), draw(MOMENT), draw(st.floats(0, 100)), draw(st.booleans())))
            rows.append(heldout(number, 1, draw(MOMENT)))
            events.append(event(number, draw(st.sampled_from(["stop", "parity"])), draw(MOMENT)))
            events.append(event(number, "checkpoint_staged", draw(MOMENT), seconds=draw(st.floats(0, 100))))
            events.append(event(number, "checkpoint_saved", draw(MOMENT), seconds=200.0, waited=draw(st.floats(0, 100))))
    return attempts, rows, events


@given(histories(), MOMENT, MOMENT)
def test_kinds_add_up_to_the_wall_time_exactly(history: tuple[list[Lifetime], list[MetricRow], list[EventRow]], submitted: float, until: float) -> None:
    attempts, rows, events = history
    found = goodput(attempts, rows, events, submitted, until)
    last = attempts[-1][1] if attempts else None
    stop = last.time if last and last.action in (Action.done, Action.fail, Action.hold) else until
    assert found.wall == max(0, round(stop * 1000) - round(submitted * 1000))
    assert min(found.milliseconds.values()) >= 0
