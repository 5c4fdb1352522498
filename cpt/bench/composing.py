"""How long the configs of a sweep's trials take: ours, against Hydra's own way of composing each trial from the YAML again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from cpt.config.compose import CONFIG_FOLDER
from cpt.config.multirun import compose_trials

Trials = Sequence[Sequence[str]]
"""Overrides of each trial."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Composing:
    """Medians over pairs; seconds for all trials. `ratio` is Hydra's time over ours, of each pair, so that a busy machine slows both."""

    ours: float
    hydra: float
    ratio: float


def measure(trials: Trials, pairs: int = 3) -> Composing:
    """One after the other, `pairs` times. Ours also types, validates and seals; Hydra's only composes."""
    compose_trials(trials[:1])  # imports and caches of the file system are nobody's merit
    seconds = [(_timed(lambda: compose_trials(trials)), _timed(lambda: by_hydra(trials))) for _ in range(pairs)]
    return Composing(
        ours=statistics.median(ours for ours, _ in seconds),
        hydra=statistics.median(hydra for _, hydra in seconds),
        ratio=statistics.median(hydra / ours for ours, hydra in seconds),
    )


def by_hydra(trials: Trials) -> list[DictConfig]:
    """What Hydra's launchers do before each job."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", overrides=list(trials[0]), run_mode=RunMode.MULTIRUN)
        return [loader.load_sweep_config(master, list(trial)) for trial in trials]


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
