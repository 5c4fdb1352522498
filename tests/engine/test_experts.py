"""Latent attention and routed experts: the same training however they are cut and spread, and what breaks it without a word."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.core.world import World
from cpt.plan.memory import expert_parameters, stage_parameters
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine

MOE = ["model=tiny_moe", "train.precision=fp32", "optimizer.epsilon=1e-4"]
"""With 1e-8 Adam's first update is g / |g|, and a gradient of almost nothing that rounds to the other sign moves the next norm by 2e-6."""
TP2 = ["parallel.tensor_parallel_size=2", "parallel.sequence_parallel=true"]
LAYOUTS = {
    "TP2": (2, TP2),
    "EP2": (2, ["parallel.expert_parallel_size=2"]),
    "TP2 x EP2": (2, [*TP2, "parallel.expert_parallel_size=2", "parallel.recompute=selective"]),
    "DP4 x EP2": (4, ["parallel.expert_parallel_size=2"]),
    "TP2 x DP2 x EP4": (4, [*TP2, "parallel.expert_parallel_size=4", "parallel.recompute=full", "parallel.overlap_grad_reduce=true"]),
    "TP2 x PP2 x EP2": (4, [*TP2, "parallel.pipeline_parallel_size=2", "parallel.expert_parallel_size=2"]),
    "PP2 x VP2 x EP2": (4, ["parallel.pipeline_parallel_size=2", "parallel.virtual_pipeline_size=2", "parallel.expert_parallel_size=2"]),
}
TOLERANCE = 1e-6
"""Relative, fp32: sums in another order. Measured: 2e-7."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run root with the base alone."""
    root = tmp_path_factory.mktemp("experts")
    run_ranks(1, _make_base, root)
    return root


def _make_base(_world: World, root: Path) -> None:
    from cpt.convert.base import obtain_base
    from cpt.convert.parity import make_reference

    config = tiny_config(root, *MOE)
    make_reference(obtain_base(config.model, config.runs.base(config.model.name)))


def train(world: World, root: Path, overrides: list[str], micro_batch_size: int = 1, uncured: bool = False) -> dict[str, Any]:
    """Logits against transformers; (loss, gradient norm) and tokens per expert of three updates from the base."""
    from megatron.core.transformer.multi_latent_attention import MLASelfAttention

    from cpt import engine
    from cpt.convert import BaseFolder, import_weights
    from cpt.convert.parity import read_reference, relative_difference
    from cpt.engine.mla import LatentAttention

    config = tiny_config(root, *MOE, f"slurm.tasks_per_node={world.world_size}", *overrides)
    engine.initialize(world, config.parallel, config.seed)
    method = "_qkv_down_projection"
    with mock.patch.object(LatentAttention, method, getattr(MLASelfAttention, method)) if uncured else nullcontext():
        model = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer)
        folder = config.runs.base(config.model.name)
        import_weights(model.chunks, config.model, BaseFolder(folder))
        model.weights_changed()
        reference = read_reference(folder)
        even = reference.tokens[:, : reference.tokens.shape[1] // 4 * 4]
        logits = relative_difference(model.logits(even.numpy()).cpu(), reference.logits[:, : even.shape[1]])
        tokens = np.random.default_rng(1).integers(0, config.model.vocab_size, (8, 65))
        rows = model.rows(len(tokens))
        steps = [model.train_step(tokens[rows.start : rows.stop], micro_batch_size, 1e-3) for _ in range(3)]
    return {"logits": logits, "steps": [(step.loss, step.grad_norm) for step in steps], "tokens": steps[0].expert_tokens}


@pytest.fixture(scope="module")
def single(base: Path) -> dict[str, Any]:
    """One rank."""
    found: dict[str, Any] = run_ranks(1, train, base, [])[0]
    return found


def test_one_rank_answers_as_transformers(single: dict[str, Any]) -> None:
    """No two experts are so close that rounding could swap them: the third and the fourth of a token differ by 2e-5 at least, rounding is 1e-7."""
    assert single["logits"] <= 1e-5
    assert single["steps"][0][0] > single["steps"][2][0], "three steps on one batch must lower its loss"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exact_in_every_layout(layout: str, single: dict[str, Any], base: Path) -> None:
    size, overrides = LAYOUTS[layout]
    for found in run_ranks(size, train, base, overrides):
        assert found["logits"] <= 1e-5
        np.testing.assert_allclose(found["steps"], single["steps"], rtol=TOLERANCE)
        np.testing.assert_array_equal(found["tokens"], single["tokens"])


def test_exact_whatever_the_micro_batch(single: dict[str, Any], base: Path) -> None:
    """The balance loss is one of each sequence; megatron-core's default, one of each micro-batch, moves the norm by 1.5e-4."""
    found = run_ranks(1, train, base, [], 4)[0]
    np.testing.assert_allclose(found["steps"], single["steps"], rtol=TOLERANCE)


def test_the_balance_loss_moves_the_gradient_alone(single: dict[str, Any], base: Path) -> None:
    without = run_ranks(1, train, base, ["model.moe.aux_loss_coefficient=0.0"])[0]
    assert without["steps"][0][0] == single["steps"][0][0]
    assert without["steps"][0][1] != pytest.approx(single["steps"][0][1], rel=1e-6)


def test_tokens_of_experts_are_all_counted_once(single: dict[str, Any]) -> None:
    """8 sequences of 64 tokens, 3 experts each, in 3 layers of 8 experts."""
    assert single["tokens"].shape == (3, 8)
    assert single["tokens"].sum(axis=1).tolist() == [8 * 64 * 3] * 3


def test_without_the_cure_the_rotated_key_loses_its_gradient(single: dict[str, Any], base: Path) -> None:
    """megatron-core alone: the first loss is right, the gradient's norm off by 1e-4, after two updates by 5e-4, with Adam's usual epsilon by 4e-3."""
    wrong = run_ranks(2, train, base, TP2, 1, True)[0]["steps"]
    assert wrong[0][0] == pytest.approx(single["steps"][0][0], rel=TOLERANCE)
    assert abs(wrong[2][1] / single["steps"][2][1] - 1) > 1e-4, "megatron-core has mended this: take the cure out"


def test_routing_that_has_collapsed_shows() -> None:
    from cpt.train.journaling import routing

    even, collapsed = np.full((2, 8), 192), np.array([[512] * 3 + [0] * 5, [192] * 8])
    assert routing(even) == {"moe/imbalance": 1.0, "moe/imbalance_mean": 1.0, "moe/idle_experts": 0}
    assert routing(collapsed) == pytest.approx({"moe/imbalance": 8 / 3, "moe/imbalance_mean": (8 / 3 + 1) / 2, "moe/idle_experts": 5})


def test_parameters_of_a_rank_are_the_planners() -> None:
    """DeepSeek-V2-Lite on 24 ranks, really built, without storage: TP2 x PP3 x DP4, experts over 8 ranks."""
    overrides = ["parallel.expert_parallel_size=8", "parallel.pipeline_parallel_size=3", *TP2, "slurm.nodes=3", "slurm.tasks_per_node=8"]
    config = compose_config(["experiment=ellama_8b", "model=deepseek_v2_lite", *overrides])
    found = run_ranks(1, _built, config)[0]
    for stage, (total, experts) in enumerate(found):
        assert total == stage_parameters(config.model, config.parallel, stage)
        assert experts == expert_parameters(config.model, config.parallel, stage)


def _built(_world: World, config: RunConfig) -> list[tuple[int, int]]:
    from cpt.engine import Engine
    from cpt.engine.rehearsal import rehearse

    found = []
    for stage in range(3):
        with rehearse(World(rank=3 + 8 * stage, world_size=24), config.parallel):
            named = dict(Engine(config.model, config.parallel, config.train.precision).chunks[0].named_parameters())
            found.append((sum(p.numel() for p in named.values()), sum(p.numel() for name, p in named.items() if "local_experts" in name)))
    return found
