"""Hydra's own multirun over `hydra_conf/`, and the configs of its trials."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir, version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf
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

    Reading the YAML of a set of group choices takes a tenth of a second, and typing a whole config a quarter of that. So each set is
    read once, each section is typed once per set of overrides that touch it, and trials share the sections in which they agree: sealed
    ones never change.
    """
    GlobalHydra.instance().clear()
    found: list[RunConfig] = []
    problems: list[Problem] = []
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        composer = _Composer(search_path([override for trial in trials for override in trial]))
        for index, trial in enumerate(trials):
            try:
                found.append(seal(composer.compose(trial)))
            except UserError as error:
                problems += (of_trial(index, trial, problem) for problem in error.problems)
            except (HydraException, OmegaConfBaseException) as error:
                problems.append(of_trial(index, trial, explain(error, trial)))
    if problems:
        raise UserError(problems)
    return found


class _Composer:
    """Composes trial after trial and remembers what they have in common."""

    def __init__(self, path: list[str]) -> None:
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        self.path = path
        self.parser = OverridesParser.create(config_loader=loader)
        self.is_group = functools.cache(loader.repository.group_exists)
        self.parsed: dict[str, Override] = {}
        self.chosen: dict[tuple[str, ...], _Choices] = {}

    def compose(self, trial: Sequence[str]) -> RunConfig:
        """Typed, not yet sealed."""
        for text in trial:
            if text not in self.parsed:
                (self.parsed[text],) = self.parser.parse_overrides([text])
        overrides = [self.parsed[text] for text in trial]
        key = tuple(str(override.input_line) for override in overrides if self.is_group(override.key_or_group))
        if key not in self.chosen:
            self.chosen[key] = _Choices(compose("config", overrides=[*key, *self.path]))
        return self.chosen[key].apply([override for override in overrides if not self.is_group(override.key_or_group)])


class _Choices:
    """The config that one set of group choices gives, and its sections under the plain values laid over them so far."""

    def __init__(self, composed: DictConfig) -> None:
        self.composed = composed
        self.sections: dict[tuple[str, ...], Any] = {}
        self.separable = not _looks_elsewhere(OmegaConf.to_yaml(composed))

    def apply(self, values: Sequence[Override]) -> RunConfig:
        """By section where no value depends on another section; whole where one does, or where something is wrong: there the message is exact."""
        if self.separable and all(map(_stays_inside, values)):
            try:
                return RunConfig(**{name: self._section(name, [value for value in values if _section_of(value) == name]) for name in _KINDS})
            except (HydraException, OmegaConfBaseException):
                pass
        config = copy.deepcopy(self.composed)
        ConfigLoaderImpl._apply_overrides_to_config(list(values), config)
        return to_run_config(config)

    def _section(self, name: str, values: list[Override]) -> Any:
        key = (name, *(str(value.input_line) for value in values))
        if key not in self.sections:
            alone = OmegaConf.masked_copy(self.composed, name)
            OmegaConf.set_struct(alone, True)
            ConfigLoaderImpl._apply_overrides_to_config(values, alone)
            plain = OmegaConf.to_container(alone, resolve=True)
            self.sections[key] = getattr(OmegaConf.to_object(OmegaConf.merge(_schema(name), plain)), name)
        return self.sections[key]


_KINDS = get_type_hints(RunConfig)
"""Name of each section and plain value of the root -> its type."""


@functools.cache
def _schema(name: str) -> Any:
    """A root with this one key."""
    default = next(item for item in dataclasses.fields(RunConfig) if item.name == name)
    value = dataclasses.field(default_factory=default.default_factory) if callable(default.default_factory) else default.default
    return OmegaConf.structured(dataclasses.make_dataclass("Root", [(name, _KINDS[name], value)]))


def _section_of(override: Override) -> str:
    return str(override.key_or_group).partition(".")[0]


def _stays_inside(override: Override) -> bool:
    """Whether an override changes nothing but a part of one section, or one plain value of the root."""
    name, inner, _ = str(override.key_or_group).partition(".")
    whole_section = not inner and dataclasses.is_dataclass(_KINDS.get(name))
    return name in _KINDS and not whole_section and not override.is_delete() and not _looks_elsewhere(str(override.input_line))


def _looks_elsewhere(text: str) -> bool:
    """Interpolations reach any section, except those that read the environment."""
    return "${" in text.replace("${oc.env:", "")


def of_trial(index: int, trial: Iterable[str], problem: Problem) -> Problem:
    """The same problem, with the trial that it belongs to."""
    return dataclasses.replace(problem, where=f"trial {index} ({' '.join(trial)}): {problem.where}")
