"""However the model is cut, the same weights and batch give the same loss and the same gradient norm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import TP2_PP2_DP2, tiny_config

pytestmark = pytest.mark.engine

FP32 = "train.precision=fp32"
LAYOUTS = {
    "TP2": (2, ["slurm.tasks_per_node=2", "parallel.tensor_parallel_size=2"]),
    "PP2": (2, ["slurm.tasks_per_node=2", "parallel.pipeline_parallel_size=2"]),
    "DP2": (2, ["slurm.tasks_per_node=2"]),
    "TP2 sequence parallel, selective recompute": (
        2,
        ["slurm.tasks_per_node=2", "parallel.tensor_parallel_size=2", "parallel.sequence_parallel=true", "parallel.recompute=selective"],
    ),
    "TP2 x PP2 x DP2 overlapped": (8, TP2_PP2_DP2),
    "PP2 x VP2": (2, ["slurm.tasks_per_node=2", "parallel.pipeline_parallel_size=2", "parallel.virtual_pipeline_size=2"]),
    "TP2 x PP2 x VP2 x DP2 overlapped": (8, [*TP2_PP2_DP2, "parallel.virtual_pipeline_size=2"]),
}


def three_steps(world: World, root: Path, overrides: list[str]) -> list[tuple[float, float]]:
    """(loss, grad norm) of three updates from the base."""
    from cpt import engine
    from cpt.convert import BaseFolder, import_weights

    config = tiny_config(root, FP32, *overrides)
    engine.initialize(world, config.parallel, config.seed)
    model = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer)
    import_weights(model.chunks, config.model, BaseFolder(config.runs.base("tiny")))
    model.weights_changed()
    tokens = np.random.default_rng(1).integers(0, config.model.vocab_size, (8, 65))
    rows = model.rows(len(tokens))
    results = [model.train_step(tokens[rows.start : rows.stop], 1, 1e-3) for _ in range(3)]
    return [(result.loss, result.grad_norm) for result in results]


@pytest.fixture(scope="module")
def reference(root: Path) -> list[tuple[float, float]]:
    """One rank."""
    found: list[tuple[float, float]] = run_ranks(1, three_steps, root, [])[0]
    assert found[0][0] > found[2][0], "three steps on one batch must lower its loss"
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exact_loss_and_grad_norm_in_every_layout(layout: str, reference: list[tuple[float, float]], root: Path) -> None:
    size, overrides = LAYOUTS[layout]
    for found in run_ranks(size, three_steps, root, overrides):
        np.testing.assert_allclose(found, reference, rtol=1e-6)
