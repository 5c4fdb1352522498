"""Where the time of a run went: kinds that add up to its wall time, to the millisecond.

::

    queued       no nodes: before the first attempt, between attempts that went through the queue, or held for a human
    starting     nodes, but no step yet in this attempt: preflight, imports, process groups, weights, data
    useful       steps that count
    recomputed   steps that were done and lost, because a later attempt went on from before them
    evaluating   held-out evaluations
    saving       checkpoints
    idle         nodes, and none of these: noticing a failure, ending ranks, the way to a relaunch, the step under way

Goodput is useful / wall, as in Google's ML Productivity Goodput: a step counts once, however often it was computed. Wall time runs from the
submission to the end of the last attempt, or to now while another may come.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cpt.core.attempts import Action, AttemptBegin, AttemptEnd
from cpt.tracking.journal import ATTEMPT_BEGIN, EventRow, MetricRow

Lifetime = tuple[AttemptBegin, AttemptEnd | None]
"""An attempt's first and last word; None while it runs, or when it could not say one."""

OVER = (Action.done, Action.fail, Action.hold)
"""After these nothing comes by itself."""


Line = MetricRow | EventRow

_FIRST_WORDS = (ATTEMPT_BEGIN, "parity", "resume")
"""Events before the first step of an attempt."""

_WAITED = {"checkpoint_staged": "seconds", "checkpoint_saved": "waited", "fast_staged": "seconds", "fast_saved": "waited"}
"""Event -> the field with the seconds that training stood still for a checkpoint until then."""


class Kind(StrEnum):
    """What a moment was spent on."""

    useful = "useful"
    recomputed = "recomputed"
    saving = "saving"
    evaluating = "evaluating"
    starting = "starting"
    idle = "idle"
    queued = "queued"


Mark = tuple[int, Kind]
"""Until when (milliseconds since the epoch) what was done."""


@dataclass(frozen=True, slots=True)
class Goodput:
    """Milliseconds by kind; every kind is there, and they add up to `wall`."""

    milliseconds: dict[Kind, int]

    @property
    def wall(self) -> int:
        """Milliseconds in all."""
        return sum(self.milliseconds.values())

    def seconds(self, kind: Kind) -> float:
        """Spent on one kind."""
        return self.milliseconds[kind] / 1000

    def share(self, kind: Kind) -> float:
        """Of the wall time; 0 when no time has passed."""
        return self.milliseconds[kind] / self.wall if self.wall else 0.0


def goodput(attempts: Sequence[Lifetime], rows: Sequence[MetricRow], events: Sequence[EventRow], submitted: float, until: float) -> Goodput:
    """All kinds. `submitted` and `until` in seconds since the epoch; what happened outside of them is not counted."""
    spent = dict.fromkeys(Kind, 0)
    last = attempts[-1][1] if attempts else None
    end = _milliseconds(last.time if last and last.action in OVER else until)
    begin = cursor = min(_milliseconds(submitted), end)
    for moment, kind in _marks(attempts, rows, events, end):
        next_cursor = min(max(cursor, moment), end)
        spent[kind] += next_cursor - cursor
        cursor = next_cursor
    assert sum(spent.values()) == cursor - begin
    return Goodput(spent)


def node_seconds(attempts: Sequence[Lifetime], until: float) -> float:
    """Nodes times seconds that were allocated, spares and the way to a relaunch included; `until` for an attempt that has not ended."""
    total = 0.0
    for (begin, end), later in itertools.zip_longest(attempts, attempts[1:]):
        inside = later is not None and later[0].path == "relaunch"
        ended = later[0].time if inside else end.time if end else later[0].time if later else until
        total += (len(begin.nodes) + len(begin.spares)) * max(0.0, ended - begin.time)
    return total


def _marks(attempts: Sequence[Lifetime], rows: Sequence[MetricRow], events: Sequence[EventRow], end: int) -> Iterator[Mark]:
    """From the submission to `end`; a mark that is not later than the one before spends nothing."""
    after = Kind.queued
    for (begin, ended), later in itertools.zip_longest(attempts, attempts[1:]):
        limit = _milliseconds(later[0].time) if later else end
        mine: list[Line] = [row for row in rows if row.attempt == begin.number]
        mine += [event for event in events if event.attempt == begin.number]
        yield _milliseconds(begin.time), Kind.idle if begin.path == "relaunch" else Kind.queued
        for moment, kind in _spent(mine, None if ended is None or ended.action is Action.done else ended.step, _milliseconds(ended.time) if ended else limit):
            yield min(moment, limit), kind
        after = Kind.idle if ended and ended.action is Action.relaunch else Kind.queued
    yield end, after


def _spent(lines: Sequence[Line], kept: int | None, end: int) -> Iterator[Mark]:
    """What one attempt did until `end`: each line of its journal ends the work that it tells of. Steps beyond `kept` were lost."""
    waiting = Kind.starting
    for line in sorted(lines, key=_order):
        kind, seconds = _work(line, kept)
        if kind is None:
            yield line.ts_ms, waiting
            continue
        if seconds is not None:
            yield line.ts_ms - _milliseconds(seconds), waiting
        waiting = Kind.idle
        yield line.ts_ms, kind
    yield end, waiting


def _order(line: Line) -> tuple[int, int]:
    """By time; within a millisecond first words, then rows, then saves and last words."""
    if isinstance(line, MetricRow):
        return line.ts_ms, 1
    return line.ts_ms, 0 if line.name in _FIRST_WORDS else 2


def _work(line: Line, kept: int | None) -> tuple[Kind | None, float | None]:
    """What a line tells of, and its seconds; None for the seconds means: all since the line before."""
    if isinstance(line, EventRow):
        waited = _WAITED.get(line.name)
        return (Kind.saving, float(line.fields[waited])) if waited else (None, None)
    if "train/loss" not in line.values:
        return Kind.evaluating, None
    lost = line.superseded or (kept is not None and line.step > kept)
    return Kind.recomputed if lost else Kind.useful, line.values.get("train/step_seconds")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
