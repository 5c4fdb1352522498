"""How far a run has come and how fast it goes; and how it came back each time that it was interrupted. From its journal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from cpt.core.paths import RunPaths
from cpt.tracking.goodput import Lifetime
from cpt.tracking.journal import MetricRow, journal_files, parse_line

RECENT = 50
"""Steps from which the pace is taken."""

_TAIL = 1 << 16
"""Bytes at the end of a journal in which its last step is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The last step that was done; `time` in seconds since the epoch."""

    step: int
    loss: float
    time: float
    tokens_per_second: float
    """Median of the recent steps, saves and evaluations not counted."""
    step_seconds: float
    """On the wall clock, saves and evaluations included."""
    consumed_tokens: int


def progress(rows: Sequence[MetricRow]) -> Progress | None:
    """None before the first step. The pace is that of the last attempt that did a step."""
    trained = [row for row in rows if "train/loss" in row.values]
    if not trained:
        return None
    last = max(trained, key=lambda row: (row.attempt, row.step))
    recent = [row for row in trained if row.attempt == last.attempt][-RECENT:]
    passed = (last.ts_ms - recent[0].ts_ms) / 1000 / (len(recent) - 1) if len(recent) > 1 else last.values.get("train/step_seconds", 0.0)
    return Progress(
        step=last.step,
        loss=last.values["train/loss"],
        time=last.ts_ms / 1000,
        tokens_per_second=median(row.values.get("train/tokens_per_second", 0.0) for row in recent),
        step_seconds=passed,
        consumed_tokens=last.consumed_tokens,
    )


def last_step(run: RunPaths) -> tuple[int, float] | None:
    """(step, loss) of the last step that was done, read from the end of the journal alone; None before the first."""
    for path in reversed(journal_files(run, "metrics")):
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            lines = file.read().split(b"\n")
        for line in map(parse_line, reversed(lines)):
            if line and "train/loss" in line["values"]:
                return int(line["step"]), float(line["values"]["train/loss"])
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """One attempt taking up the work of those before it."""

    attempt: int
    path: str
    """relaunch | requeue | chain | submit"""
    ending: str
    """Why the attempt before it ended; `unknown` when nobody wrote it."""
    seconds: float | None
    """From the last step done before it to its own first; None while it has done none, or when there was none before."""
    step: int
    """Of the checkpoint it went on from."""
    lost_steps: int
    """Steps of the attempt before that it computes again."""


def recoveries(attempts: Sequence[Lifetime], rows: Sequence[MetricRow]) -> list[Recovery]:
    """One for every attempt but the first."""
    steps: dict[int, list[MetricRow]] = {}
    for row in rows:
        if "train/loss" in row.values:
            steps.setdefault(row.attempt, []).append(row)
    found, last = [], 0
    for (before, ended), (begin, _) in itertools.pairwise(attempts):
        last = max([last, *(row.ts_ms for row in steps.get(before.number, []))])
        first = min((row.ts_ms for row in steps.get(begin.number, [])), default=0)
        reached = max((row.step for row in steps.get(before.number, [])), default=before.step)
        recovery = Recovery(
            attempt=begin.number,
            path=begin.path,
            ending=str(ended.ending) if ended else "unknown",
            seconds=(first - last) / 1000 if first and last else None,
            step=begin.step,
            lost_steps=max(0, reached - begin.step),
        )
        found.append(recovery)
    return found
