"""Reads what the trials of a sweep left in their run directories."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from cpt.config.data import SourceGroup
from cpt.config.fingerprint import fingerprint
from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.attempts import AttemptEnd, StopRecord
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths, SweepPaths
from cpt.core.records import SweepRecord, TrialRow

Series = Callable[[RunPaths, str], dict[int, float]]
"""Step -> value of a journaled metric; handed in, because the journal lives in a room beside this one."""

DOMAIN, GENERAL = "heldout/loss/domain", "heldout/loss/general"
ENDED = ("done", "failed")


def load_sweep(sweep: SweepPaths) -> SweepRecord:
    """Raises `UserError` when no such sweep was submitted."""
    if not sweep.sweep.exists():
        known = sorted(path.parent.name for path in sweep.root.parent.glob("*/sweep.json"))
        fix = f"--sweep {' or '.join(known)}" if known else "cpt train -m hydra/launcher=slurm sweep.name=<name> optimizer.lr_ratio=0.03,0.1"
        raise UserError(Problem(where=str(sweep.sweep), what="not found", why="no sweep of this name was submitted", fix=fix))
    return SweepRecord.load(sweep.sweep)


def collect_rows(sweep: SweepPaths, keys: Sequence[str], series: Series) -> list[TrialRow]:
    """One row per submitted trial, also for those that have not begun."""
    return [_row(sweep.trial(index), index, overrides, keys, series) for index, overrides in enumerate(load_sweep(sweep).trials)]


def _row(run: RunPaths, index: int, overrides: list[str], keys: Sequence[str], series: Series) -> TrialRow:
    state = trial_state(run)
    config = read_config(run.config) if run.config.exists() else None
    return TrialRow(
        index=index,
        fingerprint=fingerprint(config) if config else "",
        overrides=overrides,
        settings={key: setting(config, key) for key in keys} if config else {},
        state=state,
        domain_loss=_last(series(run, DOMAIN)) if state == "done" else None,
        general_loss=_last(series(run, GENERAL)) if state == "done" else None,
        rises=_rises(run, config, series) if state == "done" and config else {},
    )


def _rises(run: RunPaths, config: RunConfig, series: Series) -> dict[str, float]:
    """Per general source, last held-out loss minus that of step 0; a source that was not evaluated at both is left out."""
    names = [name for name, source in config.corpus.sources.items() if source.group is SourceGroup.general]
    found = {name: series(run, f"heldout/loss/{name}") for name in names}
    return {name: list(values.values())[-1] - values[0] for name, values in found.items() if len(values) > 1 and 0 in values}


def _last(values: dict[int, float]) -> float | None:
    return next(reversed(values.values()), None)


def trial_state(run: RunPaths) -> str:
    """queued | running | done | failed, from files alone."""
    if run.stopped.exists() and StopRecord.load(run.stopped).reason == "done":
        return "done"
    attempts = run.attempts()
    if attempts and attempts[-1].end.exists() and AttemptEnd.load(attempts[-1].end).action in ("fail", "hold"):
        return "failed"
    return "running" if attempts or any(run.metrics(0).parent.glob("*")) else "queued"


def base_losses(sweep: SweepPaths, series: Series) -> tuple[float | None, float | None]:
    """Domain and general loss before the first step; every trial starts from the same base, so the first that has them counts."""
    for run in sweep.trials():
        domain, general = series(run, DOMAIN).get(0), series(run, GENERAL).get(0)
        if domain is not None and general is not None:
            return domain, general
    return None, None


def setting(config: RunConfig, path: str) -> Any:
    """The plain value at a dotted path. Raises `UserError` when there is no such key."""
    value: Any = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    if value is None:
        raise UserError(Problem(where="sweep.keys", what=f"names {path}", why="the config has no such key", fix="cpt config shows every key"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.value if isinstance(value, Enum) else value
