"""Heartbeats: every rank says, every few seconds, that it lives and what it is doing.

One small file per rank, replaced by one write. Whoever watches needs no clock but its own: what counts is when a file's content
changes (the rank lives) and when its phase or step does (the rank gets on).
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from cpt.core.paths import AttemptPaths


class Phase(StrEnum):
    """What a rank is doing. Each has a time of its own after which it is taken for a hang."""

    start = "start"  # imports, process groups, weights, data: everything before the first step
    step = "step"
    evaluate = "evaluate"
    save = "save"
    done = "done"


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    """One rank's last sign of life. `time` and `since` are seconds since the epoch by that rank's node."""

    rank: int
    host: str
    pid: int
    phase: Phase
    step: int
    """Optimizer updates done."""
    since: float
    """When this phase or step began."""
    time: float


class Heart:
    """Beats in a thread of its own from construction to `stop`. The rank's main thread only says what it does, with `at`."""

    def __init__(self, path: Path, rank: int, host: str, interval: float, closed: Path | None = None) -> None:
        """`closed`: a file whose appearance means that this process must not write another byte; it leaves at once."""
        self._path, self._closed = path, closed
        self._rank, self._host, self._interval = rank, host, interval
        self._doing = (Phase.start, 0, time.time())
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()
        if kind is None:
            self.at(Phase.done, self._doing[1])
            self._write()

    def at(self, phase: Phase, step: int) -> None:
        """The main thread's word; it reaches the file with the next beat."""
        self._doing = (phase, step, time.time())

    @property
    def step(self) -> int:
        """Updates done, as the main thread last said."""
        return self._doing[1]

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            with suppress(OSError):  # a full or slow disk must not end training; silence says it
                self._write()
            if self._closed and self._closed.exists():
                os._exit(1)

    def _write(self) -> None:
        phase, step, since = self._doing
        beat = {"rank": self._rank, "host": self._host, "pid": os.getpid(), "phase": phase, "step": step, "since": since, "time": time.time()}
        self._path.write_text(json.dumps(beat) + "\n")


def read_beats(attempt: AttemptPaths) -> list[Beat]:
    """The last beat of each rank, by rank; one that is being replaced right now is left out."""
    return sorted(filter(None, map(read_beat, attempt.beats.glob("*.[0-9]*"))), key=lambda beat: beat.rank)


def read_beat(path: Path) -> Beat | None:
    """None while it is not there or half written."""
    try:
        values = json.loads(path.read_text())
        return Beat(**values | {"phase": Phase(values["phase"])})
    except (OSError, ValueError, TypeError):
        return None
