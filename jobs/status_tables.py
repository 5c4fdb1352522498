"""Many at once: the trials of a sweep, and the runs below a folder, a line each. Only the ends of journals are read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from cpt.core.artifacts import read_json
from cpt.core.errors import CptError
from cpt.core.paths import RunPaths, SweepPaths
from cpt.tracking.progress import last_step
from jobs.status_facts import DEAD, DEGRADED, FINE
from slurm import standing
from slurm.standing import Queue, State
from slurm.submit import JobRecord

RUNS = 30
"""The newest ones are listed."""

_LOST = ("failed", "ended", "not in the queue")
"""States of a trial that nothing will change by itself."""

Trial = tuple[int, Sequence[str], str, RunPaths]
"""Index, overrides, state, directory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLine:
    """One run among others. `step` and `loss` of the last step that was done."""

    run: RunPaths
    state: State
    why: str
    attempts: int
    step: int
    steps: int
    loss: float | None
    submitted: float


def trial_table(name: str, trials: Iterable[Trial]) -> Table:
    """One row per trial; of its overrides only those that not every trial has."""
    trials = list(trials)
    shared = set[str].intersection(*(set(overrides) for _, overrides, _, _ in trials)) if len(trials) > 1 else set[str]()
    title = f"sweep {name}: {tally(trials)}"
    table = Table("trial", "fingerprint", "state", "step", "loss", "job", "overrides", title=title, box=None, title_justify="left", header_style="dim")
    for index, overrides, state, run in trials:
        step, loss = last_step(run) or (0, None)
        own = " ".join(item for item in overrides if item not in shared)
        table.add_row(f"{index:03d}", _fingerprint(run), state, str(step), _loss(loss), _job(run), own)
    return table


def trials_as_json(trials: Iterable[Trial]) -> list[dict[str, object]]:
    """The same for programs."""
    found: list[dict[str, object]] = []
    for index, overrides, state, run in trials:
        step, loss = last_step(run) or (0, None)
        row = {"trial": index, "fingerprint": _fingerprint(run), "state": state, "step": step, "loss": loss, "job": _job(run), "overrides": list(overrides)}
        found.append(row)
    return found


def tally(trials: Sequence[Trial]) -> str:
    """`2 done, 1 RUNNING`."""
    return ", ".join(f"{count} {state}" for state, count in Counter(state for _, _, state, _ in trials).items())


def trials_exit_code(trials: Sequence[Trial]) -> int:
    """DEGRADED when a trial was lost, DEAD when all were."""
    lost = [state for _, _, state, _ in trials if state in _LOST]
    return FINE if not lost else DEAD if len(lost) == len(trials) else DEGRADED


def all_ended(trials: Sequence[Trial]) -> bool:
    """Whether nothing will change by itself."""
    return all(state in ("done", *_LOST) for _, _, state, _ in trials)


def any_in(root: Path) -> bool:
    """Whether a folder holds runs or sweeps."""
    return any(True for pattern in ("*/config.yaml", "sweeps/*/sweep.json") for _ in root.glob(pattern))


def run_lines(root: Path) -> list[RunLine]:
    """The runs of a folder, newest submission first; a directory that cannot be read is left out."""
    found, queue = [], Queue()
    for config in root.glob("*/config.yaml"):
        with suppress(CptError):
            found.append(_line(RunPaths(config.parent), queue))
    return sorted(found, key=lambda line: -line.submitted)


def run_table(root: Path, lines: Sequence[RunLine]) -> Table:
    """One row per run."""
    table = Table("run", "state", "attempts", "step", "loss", "submitted", "why", title=f"{root}", box=None, title_justify="left", header_style="dim")
    for line in lines[:RUNS]:
        when = time.strftime("%d %b %H:%M", time.localtime(line.submitted))
        table.add_row(line.run.root.name, str(line.state), str(line.attempts), f"{line.step:,} of {line.steps:,}", _loss(line.loss), when, line.why)
    return table


def runs_as_json(lines: Sequence[RunLine]) -> list[dict[str, object]]:
    """The same for programs."""
    return [asdict(line) | {"run": str(line.run.root)} for line in lines]


def sweeps(root: Path) -> list[SweepPaths]:
    """Below a run root, newest first."""
    found = sorted((root / "sweeps").glob("*/sweep.json"), key=lambda path: -path.stat().st_mtime)
    return [SweepPaths(path.parent) for path in found]


def _line(run: RunPaths, queue: Queue) -> RunLine:
    known = standing.of_run(run, queue)
    step, loss = last_step(run) or (0, None)
    return RunLine(
        run=run,
        state=known.state,
        why=known.why,
        attempts=len(known.attempts),
        step=step,
        steps=known.config.train.steps,
        loss=loss,
        submitted=known.submitted,
    )


def _fingerprint(run: RunPaths) -> str:
    with suppress(CptError, KeyError):
        return str(read_json(run.run)["fingerprint"])
    return ""


def _job(run: RunPaths) -> str:
    return JobRecord.load(run.job).id if run.job.is_file() else ""


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
