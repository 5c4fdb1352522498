"""Norms by layer are those of the whole model, however it is cut."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import TP2_PP2_DP2, tiny_config

pytestmark = pytest.mark.engine


def watched(world: World, root: Path, overrides: list[str]) -> Any:
    """The norms of a first update from the base, the gradient's norm as the engine says it, and the norms of the weights without the optimizer."""
    from cpt import engine
    from cpt.convert import BaseFolder, import_weights
    from cpt.engine.layers import LayerWatch

    config = tiny_config(root, "train.precision=fp32", *overrides)
    engine.initialize(world, config.parallel, config.seed)
    model = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer)
    import_weights(model.chunks, config.model, BaseFolder(config.runs.base(config.model.name)))
    model.weights_changed()
    tokens = np.random.default_rng(1).integers(0, config.model.vocab_size, (8, 65))
    rows = model.rows(len(tokens))
    result = model.compute_gradients(tokens[rows.start : rows.stop], 1)
    weights = float(sum(param.double().square().sum() for chunk in model.chunks for param in chunk.parameters()) ** 0.5)
    watch = LayerWatch(model)
    model.update(result, 1e-3)
    return [astuple(each) for each in watch.norms()], result.grad_norm, weights


MOE = ["model=tiny_moe", "optimizer.epsilon=1e-4"]
LAYOUTS = {
    "TP2 x PP2": ([], 4, [*TP2_PP2_DP2[1:], "slurm.tasks_per_node=4"]),
    "DP2": ([], 2, ["slurm.tasks_per_node=2"]),
    "CP2": ([], 2, ["slurm.tasks_per_node=2", "parallel.context_parallel_size=2"]),
    "experts EP2": (MOE, 2, ["slurm.tasks_per_node=2", "parallel.expert_parallel_size=2"]),
    "experts TP2 x EP2": (MOE, 2, [*TP2_PP2_DP2[1:2], "slurm.tasks_per_node=2", "parallel.sequence_parallel=true", "parallel.expert_parallel_size=2"]),
}
"""Name -> (model, ranks, layout)."""


@pytest.fixture(scope="module")
def one_rank(experts_root: Path) -> dict[str, Any]:
    """By model."""
    return {str(model): run_ranks(1, watched, experts_root, model)[0] for model in ([], MOE)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exact_norms_in_every_layout(layout: str, one_rank: dict[str, Any], experts_root: Path) -> None:
    model, size, overrides = LAYOUTS[layout]
    norms, whole, weights = one_rank[str(model)]
    values = np.array([each[1:] for each in norms])
    assert np.sqrt((values[:, 0] ** 2).sum()) == pytest.approx(whole, rel=1e-6)
    assert np.sqrt((values[:, 1] ** 2).sum()) == pytest.approx(weights, rel=1e-6)
    assert all(row.min() > 0 for row, (name, *_) in zip(values, norms, strict=True) if name != "output" or row.any()), norms
    for found, _, _ in run_ranks(size, watched, experts_root, [*model, *overrides]):
        assert [each[0] for each in found] == [each[0] for each in norms]
        cut = np.array([each[1:] for each in found])
        np.testing.assert_allclose(cut[:, :2], values[:, :2], rtol=2e-6)
        # Adam's first update is m / sqrt(v), near to a sign: of gradients near epsilon the rounding is as large as they are.
        np.testing.assert_allclose(cut[:, 2], values[:, 2], rtol=1e-4)
