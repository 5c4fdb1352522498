"""Computing activations again changes no bit of loss, gradient norm or routing, with dropout on.

With sequence parallelism it would, by 2e-3 of the norm, if core attention forked the random state once more inside the block's own fork.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine

CHOICES = {
    "none": [],
    **{
        modules: ["parallel.recompute=selective", f"parallel.recompute_modules=[{modules}]"]
        for modules in ("core_attn", "mlp", "moe", "shared_experts", "core_attn,mlp,moe", "core_attn,mlp,shared_experts")
    },
    "full": ["parallel.recompute=full"],
    "full, one layer": ["parallel.recompute=full", "parallel.recompute_layers=1"],
}
TP2_PP2 = ["slurm.tasks_per_node=4", "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2", "parallel.sequence_parallel=true"]


def train(world: World, choices: dict[str, list[str]], overrides: list[str]) -> dict[str, Any]:
    """Choice -> loss, gradient norm and tokens by expert of two updates from the same random weights."""
    from cpt import engine
    from cpt.engine.attention import ForwardPlan
    from cpt.engine.parallel import seed_generators

    configs = {name: tiny_config(Path("unused"), "model=tiny_moe", *overrides, *choice) for name, choice in choices.items()}
    first = configs["none"]
    engine.initialize(world, first.parallel, first.seed)
    tokens = np.random.default_rng(1).integers(0, first.model.vocab_size, (4, 65))
    found = {}
    for name, config in configs.items():
        seed_generators(first.seed)
        plan = ForwardPlan(attention_dropout=0.1, hidden_dropout=0.1)
        model = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer, plan)
        steps = [model.train_step(tokens, 1, 1e-3) for _ in range(2)]
        found[name] = [(step.loss, step.grad_norm, step.expert_tokens.tolist()) for step in steps]
    return found


@pytest.mark.parametrize(("size", "overrides"), [(1, []), pytest.param(4, TP2_PP2, marks=pytest.mark.slow)], ids=["one rank", "TP2 x PP2"])
def test_exact_whatever_is_computed_again(size: int, overrides: list[str]) -> None:
    for found in run_ranks(size, train, CHOICES, overrides):
        for name, steps in found.items():
            assert steps == found["none"], name
        assert found["none"][0] != found["none"][1]
