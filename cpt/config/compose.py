"""The only door to Hydra: group choices and overrides in, a typed and sealed `RunConfig` out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cpt.config.explain import explain
from cpt.config.run import RunConfig
from cpt.config.seal import seal
from cpt.core.errors import UserError
from cpt.core.paths import RunsRoot

CONFIG_FOLDER = Path(__file__).parents[2] / "hydra_conf"

ConfigStore.instance().store(name="run_schema", node=RunConfig)


def compose_config(overrides: Sequence[str], validated: bool = True) -> RunConfig:
    """Compose, type-check, validate and seal. Raises `UserError` with the dotted path of what is wrong.

    Verbs that only look (`sweep`, `status`) need folders and names, not a run that could start: `validated=False`.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
            composed = compose("config", overrides=[*overrides, *search_path(overrides)])
        config = to_run_config(composed)
        return seal(config) if validated else config
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, overrides)) from None


def compose_parts(overrides: Sequence[str]) -> RunConfig:
    """For verbs that need a model, a corpus or machines, and no run: where no experiment gives a budget any will do. Raises as `compose_config`."""
    return compose_config(["train.train_tokens=1_000_000_000_000", *overrides])


def to_run_config(composed: DictConfig) -> RunConfig:
    """The typed object of a composed config; interpolations are resolved here and never again.

    Merged as plain values, because OmegaConf lets a config that was extended by `+key=value` extend the schema too.
    """
    plain = OmegaConf.to_container(composed, resolve=True)
    return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), plain)))


def search_path(overrides: Sequence[str]) -> list[str]:
    """Configs that `cpt sweep` wrote below the run root are found like those of `hydra_conf/`."""
    given = [value for key, _, value in (override.partition("=") for override in overrides) if key == "run_root"]
    folder = RunsRoot(Path(given[-1] if given else RunConfig().run_root).absolute()).config_folder
    return [f"hydra.searchpath=[file://{folder}]"] if folder.is_dir() else []
