"""However the model is cut, the same weights and batch give the same loss and the same gradient norm: `pytest -s` prints how much they differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "TP2": (2, {"tensor_parallel_size": 2}),
    "PP2": (2, {"pipeline_parallel_size": 2}),
    "DP2": (2, {}),
    "CP2": (2, {"context_parallel_size": 2}),
    "CP2 full recompute": (2, {"context_parallel_size": 2, "recompute": "full"}),
    "TP2 sequence parallel, selective recompute": (2, {"tensor_parallel_size": 2, "sequence_parallel": True, "recompute": "selective"}),
    "PP2 x VP2": (2, {"pipeline_parallel_size": 2, "virtual_pipeline_size": 2}),
    "TP2 x CP2 sequence parallel": (4, {"tensor_parallel_size": 2, "context_parallel_size": 2, "sequence_parallel": True}),
    "TP2 x PP2": (4, {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}),
    "CP2 x PP2 x VP2, full recompute": (
        4,
        {"context_parallel_size": 2, "pipeline_parallel_size": 2, "virtual_pipeline_size": 2, "recompute": "full"},
    ),
    "TP2 x PP2 x DP2 overlapped": (
        8,
        {
            "tensor_parallel_size": 2,
            "pipeline_parallel_size": 2,
            "sequence_parallel": True,
            "recompute": "full",
            "overlap_grad_reduce": True,
            "overlap_param_gather": True,
        },
    ),
    "TP2 x PP2 x VP2 x DP2 overlapped": (
        8,
        {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "virtual_pipeline_size": 2, "overlap_grad_reduce": True, "overlap_param_gather": True},
    ),
}
"""Name -> (ranks, `parallel` section)."""
END = 7
"""The token that ends a document here."""
Curve = list[tuple[float, float]]


def batch(vocabulary: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Eight rows of 64 tokens and one label; documents end at every kind of place, the last of a row and twice in a row among them."""
    tokens = np.random.default_rng(1).integers(END + 1, vocabulary, (8, 65))
    for row, ends in enumerate([[10, 11, 30], [0, 63], [15, 31, 47], [16, 32, 48], [], [5], [62, 64], [20, 40, 41, 42]]):
        tokens[row, ends] = END
    return tokens


def three_steps(world: World, root: Path, layouts: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, bool], Curve]:
    """(layout, documents masked) -> (loss, grad norm) of three updates from the base."""
    from megatron.core import parallel_state

    from cpt import engine
    from cpt.config.parallel import ParallelConfig, Recompute
    from cpt.convert import BaseFolder, import_weights
    from cpt.engine.attention import ForwardPlan
    from cpt.engine.parallel import cut_world

    config = tiny_config(root, "train.precision=fp32")
    engine.initialize(world, ParallelConfig(), config.seed)
    tokens, found = batch(config.model.vocab_size), {}
    for name, settings in layouts.items():
        parallel = ParallelConfig(**{**settings, "recompute": Recompute(settings.get("recompute", "none"))})
        parallel_state.destroy_model_parallel()
        cut_world(parallel, config.seed)
        for masked in (False, True):
            model = engine.Engine(config.model, parallel, config.train.precision, config.optimizer, ForwardPlan(end_of_document=END if masked else None))
            import_weights(model.chunks, config.model, BaseFolder(config.runs.base("tiny")))
            model.weights_changed()
            rows = model.rows(len(tokens))
            results = [model.train_step(tokens[rows.start : rows.stop], 1 if parallel.pipeline_parallel_size > 1 else 2, 1e-3) for _ in range(3)]
            found[name, masked] = [(result.loss, result.grad_norm) for result in results]
    return found


@pytest.fixture(scope="module")
def curves(root: Path) -> dict[int, list[dict[tuple[str, bool], Curve]]]:
    """World size -> what each rank found; all layouts of one size in one spawn."""
    sizes = sorted({1} | {size for size, _ in LAYOUTS.values()})
    cuts = {size: {name: settings for name, (ranks, settings) in LAYOUTS.items() if ranks == size} or {"one rank": {}} for size in sizes}
    found = {size: run_ranks(size, three_steps, root, cuts[size]) for size in sizes}
    print("\n\n| three updates against one rank's, relative | ranks | loss | gradient norm |\n| --- | --- | --- | --- |")
    for name, (size, _) in LAYOUTS.items():
        off = [np.abs(np.array(found[size][0][name, masked]) / found[1][0]["one rank", masked] - 1).max(axis=0) for masked in (False, True)]
        print(f"| {name} | {size} |", " | ".join(f"{one:.1e}" for one in np.max(off, axis=0)), "|")
    return found


@pytest.mark.parametrize("masked", [False, True], ids=["whole rows", "documents"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_exact_loss_and_grad_norm_in_every_layout(layout: str, masked: bool, curves: dict[int, list[dict[tuple[str, bool], Curve]]]) -> None:
    reference = curves[1][0]["one rank", masked]
    assert reference[0][0] > reference[2][0], "three steps on one batch must lower its loss"
    for found in curves[LAYOUTS[layout][0]]:
        np.testing.assert_allclose(found[layout, masked], reference, rtol=1e-6)


def test_masking_documents_changes_the_loss(curves: dict[int, list[dict[tuple[str, bool], Curve]]]) -> None:
    assert abs(curves[1][0]["one rank", True][0][0] - curves[1][0]["one rank", False][0][0]) > 1e-4


def answers(world: World, root: Path, overrides: list[str]) -> tuple[Any, Any]:
    """Loss of every token [8, 64] and logits [8, 64, v]."""
    from cpt import engine
    from cpt.convert import BaseFolder, import_weights

    config = tiny_config(root, "train.precision=fp32", f"slurm.tasks_per_node={world.world_size}", *overrides)
    engine.initialize(world, config.parallel, config.seed)
    model = engine.Engine(config.model, config.parallel, config.train.precision)
    import_weights(model.chunks, config.model, BaseFolder(config.runs.base("tiny")))
    tokens = batch(config.model.vocab_size)
    return model.token_losses(tokens), model.logits(tokens[:, :-1]).numpy()


def test_tokens_come_back_in_their_order_from_context_parallel_ranks(root: Path) -> None:
    """Means over rows, which training looks at, would be the same in any order."""
    whole = run_ranks(1, answers, root, [])[0]
    for found in run_ranks(2, answers, root, ["parallel.context_parallel_size=2"]):
        for mine, expected in zip(found, whole, strict=True):
            np.testing.assert_allclose(mine, expected, atol=2e-6)
