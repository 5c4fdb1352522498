"""Gradients that are not applied leave no trace; one NaN on one rank is known to all ranks before any weight is touched."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import TP2_PP2_DP2, tiny_config

pytestmark = pytest.mark.engine

LAYOUTS = {
    "one rank fp32": (1, ["train.precision=fp32"]),
    "DP2 bf16 overlapped": (2, ["slurm.tasks_per_node=2", "parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true"]),
    "TP2 x PP2 x DP2 bf16 overlapped": (8, TP2_PP2_DP2),
    "CP2 fp32": (2, ["slurm.tasks_per_node=2", "parallel.context_parallel_size=2", "train.precision=fp32"]),
    "experts EP2 fp32": (2, ["model=tiny_moe", "slurm.tasks_per_node=2", "parallel.expert_parallel_size=2", "train.precision=fp32"]),
}


def poisoned(world: World, root: Path, overrides: list[str]) -> dict[str, Any]:
    """Two updates, with and without global batches between them that one rank's gradient spoils."""
    from cpt import engine
    from cpt.convert import BaseFolder, import_weights

    config = tiny_config(root, *overrides)
    engine.initialize(world, config.parallel, config.seed)
    tokens = np.random.default_rng(1).integers(0, config.model.vocab_size, (8, 65))

    def start() -> engine.Engine:
        model = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer)
        import_weights(model.chunks, config.model, BaseFolder(config.runs.base(config.model.name)))
        model.weights_changed()
        return model

    straight, disturbed = start(), start()
    rows = straight.rows(len(tokens))
    mine = tokens[rows.start : rows.stop]
    for model in (straight, disturbed):
        model.train_step(mine, 1, 1e-3)
    disturbed.compute_gradients(mine, 1)  # overlapped, the weights of the update before are gathered here
    before = state_of(disturbed)
    bad = [spoiled(disturbed, mine, value if world.rank == world.world_size - 1 else 0.0) for value in (math.nan, math.inf)]
    dropped = state_of(disturbed) == before
    results = [model.train_step(mine, 1, 1e-3) for model in (straight, disturbed)]
    same = results[0].loss == results[1].loss and results[0].grad_norm == results[1].grad_norm and state_of(straight) == state_of(disturbed)
    return {"norms": [each.grad_norm for each in bad], "losses": [each.loss for each in bad], "dropped": dropped, "same": same}


def spoiled(model: Any, mine: Any, value: float) -> Any:
    """Gradients with `value` in one of this rank, before anything is reduced."""
    matrices = {name: parameter for name, parameter in model.chunks[-1].named_parameters() if parameter.dim() == 2}
    weight = next((parameter for name, parameter in matrices.items() if "local_experts" in name), next(iter(matrices.values())))

    def spoil(_: Any) -> None:
        weight.main_grad.view(-1)[7] += value  # what autograd hands over is empty where the product itself was added there

    hook = weight.register_hook(spoil)
    result = model.compute_gradients(mine[::-1].copy(), 1)
    hook.remove()
    return result


def state_of(model: Any) -> str:
    """Every weight, master weight, moment and count of this rank."""
    digest = hashlib.sha256()
    for chunk in model.chunks:
        for _, parameter in sorted(chunk.named_parameters()):
            digest.update(parameter.detach().float().numpy().tobytes())
    for part in model.optimizer.chained_optimizers:
        for group in part.optimizer.param_groups:
            digest.update(str(group.get("step")).encode())
            for parameter in group["params"]:
                for tensor in (parameter, *part.optimizer.state[parameter].values()):
                    digest.update(tensor.detach().float().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exact_drop(layout: str, experts_root: Path) -> None:
    size, overrides = LAYOUTS[layout]
    found = run_ranks(size, poisoned, experts_root, overrides)
    assert not any(math.isfinite(norm) for each in found for norm in each["norms"]), "a rank that does not know would update its weights"
    assert all(each["losses"] == found[0]["losses"] and math.isfinite(each["losses"][0]) for each in found)
    assert all(each["dropped"] and each["same"] for each in found)
