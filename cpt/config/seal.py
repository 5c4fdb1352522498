"""Sealed configs on disk: written once at submission, read by everything that runs later."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cpt.config.run import RunConfig
from cpt.config.section import Section
from cpt.config.validate import validate
from cpt.core.errors import MissingInput, Problem, UserError


def seal(config: RunConfig) -> RunConfig:
    """Validate everything and refuse every later change. Raises `UserError` with all problems at once."""
    if found := list(validate(config)):
        raise UserError(found)
    config.seal()
    return config


def to_yaml(config: RunConfig) -> str:
    """Every key, defaults included, so that the file alone rebuilds the config."""
    return Texts().of(config)


class Texts:
    """`to_yaml` of many configs: trials of a sweep share most of their sections, and each section is turned into text once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[Any, str]] = {}

    def of(self, config: RunConfig) -> str:
        """The config must be sealed, or not change as long as this object is asked about it."""
        return "".join(self._part(field.name, getattr(config, field.name)) for field in dataclasses.fields(config))

    def _part(self, name: str, value: Any) -> str:
        key = (name, id(value))
        if key not in self._known:  # the value is kept with its text, so that its id is not given to another
            self._known[key] = (value, OmegaConf.to_yaml(OmegaConf.create({name: OmegaConf.structured(value) if isinstance(value, Section) else value})))
        return self._known[key][1]


def read_config(path: Path) -> RunConfig:
    """The sealed config of a run directory. Raises `MissingInput` or `UserError`."""
    if not path.is_file():
        raise MissingInput(path=path, why="a run directory holds its sealed config", fix="cpt launch experiment=<name>")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(path))
        config = cast(RunConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0]
        raise UserError(Problem(where=str(path), what=what, why="it was edited or written by another version", fix="launch again")) from None
    return seal(config)
