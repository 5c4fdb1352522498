"""The planner's bytes for latent attention and experts against what a real engine saves for its backward pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.config.run import RunConfig
from cpt.config.training import Precision
from cpt.core.world import World
from cpt.plan.memory import layer_activations
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine

TOKENS = 256
"""Enough that an s x s matrix would show, which torch keeps where v is narrower than q and nobody widens it."""


RECOMPUTED = ["", "core_attn", "moe", "shared_experts", "core_attn,mlp,moe"]


def config_of(precision: Precision, layers: int, dense: int, recomputed: str) -> RunConfig:
    recompute = ["parallel.recompute=selective", f"parallel.recompute_modules=[{recomputed}]"] if recomputed else []
    overrides = [f"train.precision={precision}", *recompute, f"model.num_layers={layers}", f"model.moe.dense_layers={dense}"]
    return tiny_config(Path("unused"), "model=tiny_moe", *overrides)


def saved(_world: World, configs: list[RunConfig]) -> list[int]:
    """Bytes of all tensors that each model keeps for its backward pass, weights apart."""
    import torch

    from cpt import engine

    engine.initialize(_world, configs[0].parallel, 1)
    found = []
    for config in configs:
        model = engine.Engine(config.model, config.parallel, config.train.precision)
        model.modules[0].train()
        weights = {weight.untyped_storage().data_ptr() for weight in model.chunks[0].parameters()}
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, torch.UntypedStorage] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor

        tokens = torch.randint(0, config.model.vocab_size, (1, TOKENS))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = model.modules[0](tokens, torch.arange(TOKENS)[None], None, labels=tokens)
        found.append(sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in weights))
        del output
    return found


@pytest.mark.parametrize("recomputed", RECOMPUTED)
@pytest.mark.parametrize("precision", list(Precision))
def test_layer_activations_are_what_a_layer_saves(precision: Precision, recomputed: str) -> None:
    """Two layers more of each kind. Tokens of an expert that gets none or all cost a little less or more than planned."""
    kinds = {False: (1, 3), True: (0, 0)}
    configs = [config_of(precision, layers, dense, recomputed) for routed, dense_of in kinds.items() for layers, dense in zip((1, 3), dense_of, strict=True)]
    one_dense, three_dense, one_routed, three_routed = run_ranks(1, saved, configs)[0]
    for routed, difference in ((False, three_dense - one_dense), (True, three_routed - one_routed)):
        planned = layer_activations(configs[0].model, configs[0].parallel, precision, routed)
        assert planned == pytest.approx(difference / 2 / TOKENS, rel=0.01), f"with experts: {routed}"
