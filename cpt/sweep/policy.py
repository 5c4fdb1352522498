"""Which rule decides: the one the trials were submitted with, changed by what the command line says now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.config.training import SweepConfig
from cpt.core.paths import SweepPaths


def sweep_policy(sweep: SweepPaths, composed: RunConfig, overrides: Sequence[str]) -> SweepConfig:
    """The `sweep` section sealed in the first trial; a `sweep.x=...` among `overrides` wins over it."""
    trials = [run for run in sweep.trials() if run.config.exists()]
    if not trials:
        return composed.sweep
    given = {override.partition("=")[0].removeprefix("sweep.") for override in overrides if override.startswith("sweep.")}
    changes = {name: getattr(composed.sweep, name) for name in ("forgetting_limit", "keys") if name in given}
    return replace(read_config(trials[0].config).sweep, **changes)
