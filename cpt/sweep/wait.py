"""Waits for trials by looking at files: no scheduler is asked, so it works from any machine that sees the folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from cpt.core.errors import CptError
from cpt.core.records import SweepTable
from cpt.sweep.choose import complete


def watch(
    look: Callable[[], SweepTable], timeout: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> Iterator[SweepTable]:
    """The table at every change of a trial's state, until all have ended. Raises `CptError` after `timeout` seconds (0: never)."""
    begin, before = clock(), ""
    while True:
        table = look()
        if (now := progress(table)) != before:
            before = now
            yield table
        if complete(table):
            return
        if timeout and clock() - begin > timeout:
            raise CptError(f"sweep {table.name}: {now} after {timeout:.0f} s; `cpt status` shows the jobs, `cpt sweep --now` chooses among the done trials")
        sleep(2.0)


def progress(table: SweepTable) -> str:
    """`2 done, 1 running, 1 queued`."""
    states = [row.state for row in table.rows]
    return ", ".join(f"{states.count(state)} {state}" for state in ("done", "failed", "running", "queued") if state in states)
