"""The truth of a run: JSON lines appended by rank 0, one `write` each, one pair of files per attempt.

A kill can tear only the last line, and readers drop a line that does not parse. Steps that a later attempt computed
again stay in the files; readers mark them `superseded`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cpt.core.paths import RunPaths

ATTEMPT_BEGIN = "attempt_begin"
ANOMALY = "anomaly"
ROLLBACK = "rollback"
FAST_SAVED = "fast_saved"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """Values of one step; `superseded` when training went back before it and computed it again."""

    ts_ms: int
    """Wall clock, Unix milliseconds."""
    attempt: int
    seq: int
    step: int
    consumed_samples: int
    consumed_tokens: int
    values: dict[str, float]
    superseded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """Something that happened once: attempt_begin, parity, checkpoint_saved, resume, anomaly, rollback, stop."""

    ts_ms: int
    attempt: int
    seq: int
    name: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Return:
    """In `attempt`, at `ts_ms` (-1: from its beginning), training went on from `step`; what was written before and lies after it is superseded."""

    attempt: int
    ts_ms: int
    step: int


class Journal:
    """Appends to one attempt's journal. Only rank 0 has one; nothing here waits for a network."""

    def __init__(self, run: RunPaths, attempt: int, clock: Callable[[], float] = time.time) -> None:
        self._attempt = attempt
        self._clock = clock
        self._metrics = _Lines(run.metrics(attempt))
        self._events = _Lines(run.events(attempt))

    def metrics(self, step: int, consumed_samples: int, consumed_tokens: int, values: Mapping[str, float]) -> None:
        """Append one step's values; `step` counts finished optimizer updates (0 is the base)."""
        plain = {name: float(value) for name, value in values.items()}
        row = {"step": step, "consumed_samples": consumed_samples, "consumed_tokens": consumed_tokens, "values": plain}
        self._metrics.append(self._head() | row)

    def event(self, name: str, /, **fields: Any) -> None:
        """Append one event; `fields` are JSON values."""
        self._events.append(self._head() | {"event": name} | fields)

    def sync(self) -> None:
        """Make everything written so far survive power loss; called with every checkpoint."""
        self._metrics.sync()
        self._events.sync()

    def close(self) -> None:
        """Close both files; what was written stays."""
        self._metrics.close()
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _head(self) -> dict[str, Any]:
        return {"ts_ms": round(self._clock() * 1000), "attempt": self._attempt}


class _Lines:
    """One append-only file of JSON lines; `seq` is the line's number in it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        self._seq = before.count(b"\n")
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if before and not before.endswith(b"\n"):  # close a torn line, or the next one would be lost with it
            os.write(self._descriptor, b"\n")
            self._seq += 1

    def append(self, row: dict[str, Any]) -> None:
        text = json.dumps({**row, "seq": self._seq}, separators=(",", ":")) + "\n"
        os.write(self._descriptor, text.encode())
        self._seq += 1

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def read_metrics(run: RunPaths) -> list[MetricRow]:
    """All rows of all attempts in the order written; an empty list when nothing was journaled."""
    back = returns(read_events(run))
    return [metric_row(line, back) for path in journal_files(run, "metrics") for line in read_lines(path)]


def read_events(run: RunPaths) -> list[EventRow]:
    """All events of all attempts in the order written."""
    return [_event_row(line) for path in journal_files(run, "events") for line in read_lines(path)]


def series(run: RunPaths, name: str) -> dict[int, float]:
    """Step -> value of one metric, ascending; superseded rows left out, the last row of a step counts."""
    found = {row.step: row.values[name] for row in read_metrics(run) if name in row.values and not row.superseded}
    return dict(sorted(found.items()))


def anomalies(events: Iterable[EventRow]) -> list[EventRow]:
    """Updates that stood out, by step; one that came again after a kill counts once, as last seen."""
    found = {(event.fields["step"], *event.fields["samples"]): event for event in events if event.name == ANOMALY}
    return [found[key] for key in sorted(found)]


def journal_files(run: RunPaths, kind: str) -> list[Path]:
    """`kind` is `metrics` or `events`; one file per attempt, in the order of attempts."""
    pattern = run.metrics(0) if kind == "metrics" else run.events(0)
    return sorted(pattern.parent.glob(f"{kind}.*.jsonl"), key=lambda path: int(path.name.split(".")[1]))


def returns(events: Iterable[EventRow]) -> list[Return]:
    """Where training went back to: with each attempt, of which the first `attempt_begin` counts, and with each rollback within one."""
    begun: dict[int, Return] = {}
    rolled = []
    for event in events:
        if event.name == ATTEMPT_BEGIN and "resume_step" in event.fields:
            begun.setdefault(event.attempt, Return(event.attempt, -1, int(event.fields["resume_step"])))
        if event.name == ROLLBACK:
            rolled.append(Return(event.attempt, event.ts_ms, int(event.fields["step"])))
    return [*begun.values(), *rolled]


def metric_row(line: dict[str, Any], back: Iterable[Return]) -> MetricRow:
    """One parsed line as a row; `back` from `returns`."""
    return MetricRow(**{**line, "superseded": _superseded((line["attempt"], line["ts_ms"]), line["step"], back)})


def fast_saves(events: Sequence[EventRow]) -> list[tuple[int, int]]:
    """(attempt, step) of fast checkpoints that training did not go back before: the others hold steps that were computed again, perhaps differently."""
    back = returns(events)
    saved = [event for event in events if event.name == FAST_SAVED]
    return [(event.attempt, event.fields["step"]) for event in saved if not _superseded((event.attempt, event.ts_ms), event.fields["step"], back)]


def _superseded(written: tuple[int, int], step: int, back: Iterable[Return]) -> bool:
    """`written`: (attempt, milliseconds)."""
    return any((each.attempt, each.ts_ms) >= written and step > each.step for each in back)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of one file that parse; a torn one is dropped."""
    for text in path.read_bytes().split(b"\n"):
        if (line := parse_line(text)) is not None:
            yield line


def parse_line(text: bytes) -> dict[str, Any] | None:
    """One line, or None for an empty or torn one."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _event_row(line: dict[str, Any]) -> EventRow:
    rest = {key: value for key, value in line.items() if key not in ("ts_ms", "attempt", "seq", "event")}
    return EventRow(ts_ms=line["ts_ms"], attempt=line["attempt"], seq=line["seq"], name=line["event"], fields=rest)
