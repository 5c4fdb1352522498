"""Hydra's own multirun over `hydra_conf/`, and the configs of its trials."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from hydra import compose, initialize_config_dir, version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cpt.config.compose import CONFIG_FOLDER, search_path, to_run_config
from cpt.config.explain import explain
from cpt.config.run import RunConfig
from cpt.config.seal import seal
from cpt.core.errors import Problem, UserError


def run_hydra(overrides: Sequence[str], task: TaskFunction) -> Any:
    """`python app.py -m <overrides>` from inside: returns what the sweeper returns. Raises `UserError`."""
    GlobalHydra.instance().clear()
    version.setbase("1.3")
    try:
        hydra = Hydra.create_main_hydra2(task_name="cpt", config_search_path=create_config_search_path(str(CONFIG_FOLDER)))
        every = [*overrides, *search_path(overrides)]
        return hydra.multirun(config_name="config", task_function=task, overrides=every, with_log_configuration=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, overrides)) from None
    finally:
        GlobalHydra.instance().clear()


def compose_trials(trials: Sequence[Sequence[str]]) -> list[RunConfig]:
    """The sealed config of each trial. Raises `UserError` with the problems of all trials.

    Reading the YAML of a set of group choices takes a tenth of a second, so it is done once per set; the plain values of each trial
    are then applied to a copy by the function that Hydra itself uses for it.
    """
    GlobalHydra.instance().clear()
    composed: dict[tuple[str, ...], DictConfig] = {}
    found: list[RunConfig] = []
    problems: list[Problem] = []
    everything = [override for trial in trials for override in trial]
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        for index, trial in enumerate(trials):
            try:
                found.append(seal(to_run_config(_trial(trial, composed, search_path(everything)))))
            except UserError as error:
                problems += (of_trial(index, trial, problem) for problem in error.problems)
            except (HydraException, OmegaConfBaseException) as error:
                problems.append(of_trial(index, trial, explain(error, trial)))
    if problems:
        raise UserError(problems)
    return found


def _trial(trial: Sequence[str], composed: dict[tuple[str, ...], DictConfig], path: list[str]) -> DictConfig:
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    groups, values = _split(OverridesParser.create(config_loader=loader).parse_overrides(list(trial)), loader)
    key = tuple(str(override.input_line) for override in groups)
    if key not in composed:
        composed[key] = compose("config", overrides=[*key, *path])
    config = copy.deepcopy(composed[key])
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    return config


def _split(overrides: Iterable[Override], loader: ConfigLoaderImpl) -> tuple[list[Override], list[Override]]:
    """(choices of a group, plain values)"""
    groups: list[Override] = []
    values: list[Override] = []
    for override in overrides:
        (groups if loader.repository.group_exists(override.key_or_group) else values).append(override)
    return groups, values


def of_trial(index: int, trial: Iterable[str], problem: Problem) -> Problem:
    """The same problem, with the trial that it belongs to."""
    return dataclasses.replace(problem, where=f"trial {index} ({' '.join(trial)}): {problem.where}")
