"""What `cpt train -m` says about the trials that it launched, and what it tells the sweeper about those that it waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cpt.core.paths import RunPaths
from slurm.sweep_launch import Launched, Standing


def objective(run: RunPaths) -> float | None:
    """The last held-out loss of the domain, nats a token: lower is better."""
    from cpt.sweep.collect import DOMAIN
    from cpt.tracking.journal import series

    return next(reversed(series(run, DOMAIN).values()), None)


def table(launched: Launched, results: Mapping[int, float | str]) -> str:
    """One line per trial, with those of its overrides that not every trial has; then what was submitted and what to type next.

    Plain text, so that a thousand rows take no time.
    """
    rows = [["trial", "fingerprint", "job", "state", *(["objective"] if results else []), "overrides"], *_rows(launched.trials, results)]
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip() for row in rows]
    name = launched.sweep.root.name
    submitted = f"array job {launched.job}" if launched.job else "nothing to submit: every trial is done or in the queue"
    return "\n".join([f"sweep {name}", *lines, submitted, f"next: cpt status {launched.sweep.root}; cpt sweep sweep.name={name}"])


def _rows(trials: Sequence[Standing], results: Mapping[int, float | str]) -> Iterator[list[str]]:
    shared = set[str].intersection(*(set(trial.overrides) for trial in trials)) if len(trials) > 1 else set[str]()
    for trial in trials:
        own = " ".join(item for item in trial.overrides if item not in shared)
        outcome, state = results.get(trial.index), trial.state
        if outcome is not None:
            state = "failed" if isinstance(outcome, str) else "done"
        value = [f"{outcome:.4f}" if isinstance(outcome, float) else ""] if results else []
        yield [f"{trial.index:03d}", trial.fingerprint, trial.job, state, *value, own]
