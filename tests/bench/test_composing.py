"""The bench compares two ways to the same configs."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from cpt.bench.composing import by_hydra, measure
from cpt.config.compose import to_run_config
from cpt.config.multirun import compose_trials
from cpt.config.seal import to_yaml

TRIALS = [["experiment=lr_sweep", f"seed={seed}", f"optimizer.lr_ratio=0.{seed}"] for seed in (1, 2, 3)]


def test_both_ways_end_at_the_same_configs() -> None:
    plain = [OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]) for config in by_hydra(TRIALS)]
    assert [to_yaml(to_run_config(config)) for config in plain] == [to_yaml(config) for config in compose_trials(TRIALS)]


def test_pairs_are_compared_with_each_other() -> None:
    found = measure(TRIALS, pairs=1)
    assert found.ratio == pytest.approx(found.hydra / found.ours) and found.ours > 0
