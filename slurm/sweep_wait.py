"""Wait for trials that are on their way: by their files and the queue, so it may be ended and begun again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from cpt.config.run import RunConfig
from cpt.core.attempts import Action, AttemptEnd
from cpt.core.errors import CptError
from cpt.core.paths import RunPaths
from slurm import arrays, submit

DONE = "done"

_SHORTEST, _LONGEST = 1.0, 30.0
"""Seconds between two looks; a long sweep asks the controller less often."""


def ends(config: RunConfig, runs: Sequence[RunPaths], sleep: Callable[[float], None] = time.sleep) -> Iterator[tuple[RunPaths, str]]:
    """Each trial when it has ended, with `DONE` or with why it failed. A controller that does not answer is asked again."""
    waiting, absent, begun = list(runs), set[RunPaths](), time.monotonic()
    while waiting:
        over = {run: DONE for run in waiting if submit.is_done(run)}
        try:
            queued = arrays.active(config, waiting)
            gone = {run for run in waiting if run not in over and run.root not in queued}
            # Seen twice: another machine's last word may come a moment after its job has left the queue.
            over |= {run: DONE if submit.is_done(run) else _why(run) for run in gone & absent}
            absent = gone
        except CptError:
            pass
        yield from over.items()
        waiting = [run for run in waiting if run not in over]
        if waiting:
            sleep(min(_LONGEST, _SHORTEST + (time.monotonic() - begun) / 20))


def _why(run: RunPaths) -> str:
    attempts = run.attempts()
    if attempts and attempts[-1].end.is_file():
        end = AttemptEnd.load(attempts[-1].end)
        if end.action in (Action.fail, Action.hold):
            return f"{end.ending}: {end.message}"
    return "left the queue without a word: cancelled, or killed"
