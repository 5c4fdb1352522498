"""`cpt status <run or sweep directory>`: attempts of a run and why each ended, or the trials of a sweep."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table

from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths, SweepPaths
from jobs.console import open_console
from slurm import recovery, standing


def main(overrides: Sequence[str]) -> int:
    """Reads files and the queue; changes nothing."""
    if len(overrides) != 1:
        raise UserError(Problem(where="cpt status", what=" ".join(overrides) or "no directory", why="shows one run or sweep", fix="cpt status runs/<name>"))
    folder = Path(overrides[0]).absolute()
    console = open_console()
    if (sweep := SweepPaths(folder)).sweep.is_file():
        console.print(trial_table(folder.name, standing.of_sweep(sweep)))
        return 0
    run = standing.of_run(RunPaths(folder))
    console.print(attempt_table(folder.name, run))
    console.print(f"checkpoint: step {run.checkpoint}\nqueue: {run.queue or 'no job'}" + (f"\nlast stop: {run.outcome}" if run.outcome else ""))
    return 0


def attempt_table(name: str, run: standing.RunStanding) -> Table:
    """One row per attempt."""
    table = Table("attempt", "nodes", "begin", "end", "steps", "why it ended", "then", title=name, box=None, title_justify="left")
    for begin, end in run.attempts:
        last = (_clock(end.time), f"{begin.step}-{end.step}", f"{end.classification}: {end.message}", end.action) if end else ("", f"{begin.step}-", "", "")
        table.add_row(str(begin.number), " ".join(begin.nodes), _clock(begin.time), *last)
    return table


def trial_table(name: str, trials: Iterable[tuple[int, Sequence[str], str, RunPaths]]) -> Table:
    """One row per trial; of its overrides only those that not every trial has."""
    trials = list(trials)
    shared = set[str].intersection(*(set(overrides) for _, overrides, _, _ in trials)) if len(trials) > 1 else set[str]()
    table = Table("trial", "state", "checkpoint", "overrides", title=f"sweep {name}", box=None, title_justify="left")
    for index, overrides, state, run in trials:
        table.add_row(f"{index:03d}", state, str(recovery.last_step(run)), " ".join(item for item in overrides if item not in shared))
    return table


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
