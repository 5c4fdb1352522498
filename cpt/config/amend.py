"""What a run may change on its way, and its sealed config with that changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cpt.config.compose import CONFIG_FOLDER, search_path
from cpt.config.explain import explain
from cpt.config.run import RunConfig
from cpt.config.seal import seal
from cpt.core.amendments import Change
from cpt.core.errors import Problem, UserError

RATE = ("optimizer.lr_ratio", "schedule.", "train.train_tokens")
"""What the learning rate follows; from the amendment's step on."""

DATA = ("mixture.", "corpus.")
"""What is read; from the amendment's sample on."""

ANYTIME = (
    "train.anomaly.",
    "train.stats_interval",
    "train.micro_batch_size",
    "loader.",
    "parallel.",
    "checkpoint.",
    "evaluate.",
    "cluster.",
    "fabric.",
    "slurm.",
    "tracking.",
)
"""What does not change results, or only what is done about an anomaly still to come."""

_FIXED = {
    "model.": "weights and optimizer state have its shape",
    "train.sequence_length": "samples are windows of that length: cut anew, what was read could not be told from what was not",
    "train.global_batch_size": "steps, schedule and journal count in it",
    "train.precision": "the run would be compared with itself across two precisions",
    "train.fp8": "the run would be compared with itself across two precisions",
    "seed": "the order in which data is read follows it: what was read would come again",
    "optimizer.": "the optimizer's moments were made with it",
}


def amended(sealed: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The config with overrides laid over what was sealed, group choices as in `hydra_conf/`.

    Raises `UserError` with everything that cannot be read, may not change, or is then invalid.
    """
    try:
        config = _lay_over(sealed, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, overrides)) from None
    if problems := [_refused(change) for change in changes(sealed, config) if not change.key.startswith((*RATE, *DATA, *ANYTIME))]:
        raise UserError(problems)
    return seal(config)


def changes(before: RunConfig, now: RunConfig) -> list[Change]:
    """Every setting in which two configs differ."""
    old, new = dict(_flat(dataclasses.asdict(before))), dict(_flat(dataclasses.asdict(now)))
    return [Change(key=key, old=old.get(key), new=new.get(key)) for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]


def _lay_over(sealed: RunConfig, overrides: Sequence[str]) -> RunConfig:
    config = OmegaConf.structured(sealed)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        loader = cast(ConfigLoaderImpl, GlobalHydra.instance().config_loader())
        for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
            name, text = str(override.key_or_group), str(override.input_line)
            if loader.repository.group_exists(name) and not override.is_delete():
                config[name] = compose("config", overrides=[text, *search_path([f"run_root={sealed.run_root}"])])[name]
            else:
                ConfigLoaderImpl._apply_overrides_to_config([override], config)
    return cast(RunConfig, OmegaConf.to_object(config))


def _refused(change: Change) -> Problem:
    why = next((reason for key, reason in _FIXED.items() if change.key.startswith(key)), "it is none of the settings that a run may change on its way")
    may = ", ".join(key + "*" * key.endswith(".") for key in (*DATA, *RATE, *ANYTIME))
    return Problem(
        where=change.key, what=f"is {change.old} in this run; asked was {change.new}", why=why, fix=f"a new run (cpt launch); these may change: {may}"
    )


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value)"""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
