"""What restarts cost: for every attempt when it worked, what of its work was lost, and how long nobody worked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cpt.core.artifacts import read_json
from cpt.core.errors import CptError
from cpt.core.paths import AttemptPaths, RunPaths
from cpt.tracking.journal import ATTEMPT_BEGIN, EventRow, MetricRow

NO_WORD = "no word"
"""The ending of an attempt that began and could not say how it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt on the wall clock; times are seconds since the epoch."""

    number: int
    begin: float
    end: float
    """When its nodes were free again: the scheduler's word, or the last file it touched."""
    last_word: float
    """The last line that training journaled; survivors of a lost node may touch files long after."""
    nodes: list[str]
    job: str
    resume_step: int
    steps: list[tuple[float, int]]
    """(time, step) of each finished step, also of those that were lost later."""
    step_seconds: list[float]
    kept_step: int
    """Last of its steps that counts: what came after was computed again by the next attempt."""
    kept_until: float
    """When the work that counts was done, its evaluation and checkpoint included."""
    path: str
    """How it came to be, as in `AttemptBegin`."""
    ending: str
    """As in `AttemptEnd`; `no word` when it began and never ended, `running`, or `not recorded` when started by hand."""
    action: str
    message: str
    begin_fields: dict[str, Any] = field(default_factory=dict)
    """World size, layout, host, device as training saw them."""

    @property
    def last_step(self) -> int:
        """The highest step it finished."""
        return max((step for _, step in self.steps), default=self.resume_step)

    @property
    def first_step_time(self) -> float | None:
        """When its first step was done."""
        return self.steps[0][0] if self.steps else None

    @property
    def lost_steps(self) -> int:
        """Steps beyond the checkpoint that the next attempt started from."""
        return max(0, self.last_step - self.kept_step)

    @property
    def lost_from(self) -> float:
        """From here to `last_word` the work was lost."""
        return min(self.kept_until, self.last_word) if self.lost_steps else self.last_word


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """One attempt following another."""

    before: Attempt
    after: Attempt
    since: float | None
    """When the last step of any attempt before was done; None when there was none."""

    @property
    def seconds(self) -> float | None:
        """From that step to the first of the attempt after; None when one of them is missing."""
        first = self.after.first_step_time
        return None if first is None or self.since is None else first - self.since


def restarts(attempts: Sequence[Attempt]) -> list[Restart]:
    """All of them, in order."""
    found, since = [], None
    for before, after in itertools.pairwise(attempts):
        since = before.steps[-1][0] if before.steps else since
        found.append(Restart(before=before, after=after, since=since))
    return found


def read_attempts(run: RunPaths, rows: Sequence[MetricRow], events: Sequence[EventRow]) -> list[Attempt]:
    """All attempts that left a folder or a journal line, in order."""
    folders = {paths.number: paths for paths in run.attempts()}
    numbers = sorted({*folders, *(row.attempt for row in rows), *(event.attempt for event in events)})
    raw = [_Raw.read(run.attempt(number), rows, events) for number in numbers]
    return [item.attempt(later) for item, later in itertools.zip_longest(raw, raw[1:])]


@dataclass(frozen=True, slots=True)
class _Raw:
    """What one attempt left, before the next one says what of it counts."""

    number: int
    begin: dict[str, Any]
    end: dict[str, Any]
    rows: list[MetricRow]
    events: list[EventRow]

    @classmethod
    def read(cls, paths: AttemptPaths, rows: Sequence[MetricRow], events: Sequence[EventRow]) -> _Raw:
        mine = [row for row in rows if row.attempt == paths.number]
        said = [event for event in events if event.attempt == paths.number]
        return cls(paths.number, _plain(paths, "begin"), _plain(paths, "end"), mine, said)

    @property
    def started(self) -> float:
        return float(self.begin.get("time") or min(self._times, default=0.0))

    @property
    def _times(self) -> list[float]:
        return [row.ts_ms / 1000 for row in self.rows] + [event.ts_ms / 1000 for event in self.events]

    def _times_up_to(self, step: int) -> list[float]:
        """Of rows and saves that belong to kept steps; the attempt's first words count too."""
        rows = [row.ts_ms / 1000 for row in self.rows if row.step <= step]
        return rows + [event.ts_ms / 1000 for event in self.events if int(event.fields.get("step", step)) <= step]

    @property
    def resume_step(self) -> int:
        fields = self._begin_fields
        return int(fields.get("resume_step", self.begin.get("step", 0)))

    @property
    def _begin_fields(self) -> dict[str, Any]:
        return next((event.fields for event in self.events if event.name == ATTEMPT_BEGIN), {})

    def attempt(self, later: _Raw | None) -> Attempt:
        trained = [row for row in self.rows if "train/loss" in row.values]
        last = max((row.step for row in trained), default=self.resume_step)
        kept = min(last, later.resume_step) if later else last
        return Attempt(
            number=self.number,
            begin=self.started,
            end=self._ended(later),
            last_word=max(self._times, default=self._ended(later)),
            nodes=[str(node) for node in self.begin.get("nodes", [])],
            job=str(self.begin.get("job", "")),
            resume_step=self.resume_step,
            steps=[(row.ts_ms / 1000, row.step) for row in trained],
            step_seconds=[row.values.get("train/step_seconds", 0.0) for row in trained],
            kept_step=kept,
            kept_until=max(self._times_up_to(kept), default=self.started),
            path=str(self.begin.get("path", "")),
            ending=self._ending(later),
            action=str(self.end.get("action", "")),
            message=str(self.end.get("message", "")),
            begin_fields=self._begin_fields,
        )

    def _ended(self, later: _Raw | None) -> float:
        """A lost attempt is given its end by the next one, so no later than that one's begin."""
        end = max([*self._times, self.started, float(self.end.get("time", 0.0))])
        return min(end, later.started) if later and later.started else end

    def _ending(self, later: _Raw | None) -> str:
        """The scheduler's word, else training's own, else what their absence means."""
        said = [str(event.fields.get("reason")) for event in self.events if event.name == "stop"]
        if word := str(self.end.get("ending", "")) or (said[-1] if said else ""):
            return word
        if not later:
            return "running"
        return NO_WORD if self.begin else "not recorded"


def _plain(paths: AttemptPaths, which: str) -> dict[str, Any]:
    """Plain JSON, empty when missing or damaged: an attempt that lost its power may have left anything."""
    try:
        value = read_json(paths.begin if which == "begin" else paths.end)
    except CptError:
        return {}
    return value if isinstance(value, dict) else {}
