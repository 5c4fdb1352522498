"""The only door to Hydra: group choices and overrides in, a typed and sealed `RunConfig` out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cpt.config.run import RunConfig
from cpt.config.seal import seal
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunsRoot

CONFIG_FOLDER = Path(__file__).parents[2] / "hydra_conf"

ConfigStore.instance().store(name="run_schema", node=RunConfig)


def compose_config(overrides: Sequence[str]) -> RunConfig:
    """Compose, type-check, validate and seal. Raises `UserError` with the dotted path of what is wrong."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
            composed = compose("config", overrides=[*overrides, *search_path(overrides)])
        return seal(to_run_config(composed))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from None


def to_run_config(composed: DictConfig) -> RunConfig:
    """The typed object of a composed config; interpolations are resolved here and never again."""
    return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), composed)))


def search_path(overrides: Sequence[str]) -> list[str]:
    """Configs that `cpt sweep` wrote below the run root are found like those of `hydra_conf/`."""
    given = [value for key, _, value in (override.partition("=") for override in overrides) if key == "run_root"]
    folder = RunsRoot(Path(given[-1] if given else RunConfig().run_root).absolute()).config_folder
    return [f"hydra.searchpath=[file://{folder}]"] if folder.is_dir() else []


def explain(error: Exception) -> Problem:
    """A Hydra or OmegaConf error as one problem with a dotted path."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(cause)
    first = text.strip().splitlines()[0]
    if path := getattr(cause, "full_key", None):
        where = str(path)
    elif match := re.search(r"override '?([^'=]+)=|'([^']+)'", text):
        where = match.group(1) or match.group(2)
    else:
        where = "config"
    if "not in struct" in text or "Key '" in text:
        return Problem(where=where, what="unknown key", why=first, fix="cpt config <experiment> shows every key")
    return Problem(where=where, what="wrong value", why=first, fix="see hydra_conf/ for the choices and cpt/config for the types")
