"""Any rank of a 480-rank job, built here: the real model, DDP and distributed optimizer, on tensors without storage, against the planner's figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.core.world import World
from cpt.plan.memory import stage_activations, stage_memory
from cpt.plan.workload import workload
from tests.ranks import run_ranks

pytestmark = pytest.mark.engine

PADDING = 1e-4
"""Buffers are padded so that every data-parallel rank gets an equal, aligned part: some 64 values a rank, of billions."""
JOBS = ("ellama_70b", "ellama_8b")


@contextmanager
def built(config: RunConfig, rank: int) -> Iterator[Any]:
    """Rank `rank`'s engine."""
    from cpt.engine import Engine
    from cpt.engine.rehearsal import rehearse

    with rehearse(World(rank=rank, world_size=config.slurm.world_size), config.parallel):
        yield Engine(config.model, config.parallel, config.train.precision, config.optimizer)


def place(config: RunConfig, *, tensor: int = 0, data: int = 0, pipeline: int = 0) -> int:
    """tp fastest, then dp, then pp: a tensor-parallel group is inside a node, pipeline stages are farthest apart."""
    parallel = config.parallel
    return tensor + parallel.tensor_parallel_size * (data + parallel.data_parallel_size(config.slurm.world_size) * pipeline)


def inspect(_world: World, job: str) -> dict[str, Any]:
    """What one rank of each stage and the last rank of all hold; who the last rank's neighbors are."""
    config = compose_config([f"experiment={job}"])
    parallel, world = config.parallel, config.slurm.world_size
    tensor, stages, replicas = parallel.tensor_parallel_size, parallel.pipeline_parallel_size, parallel.data_parallel_size(world)
    held = []
    for stage in range(stages):
        with built(config, place(config, data=replicas // 2, pipeline=stage)) as engine:
            held.append(holds(engine))
            if stage == 0:
                saved = saved_activations(engine, config.train.sequence_length)
    last = place(config, tensor=tensor - 1, data=replicas - 1, pipeline=stages - 1)
    with built(config, last) as engine:
        return {"stages": held, "saved": saved, "last": last, "held by last": holds(engine), "neighbors": neighbors()}


def holds(engine: Any) -> dict[str, int]:
    """Counts and bytes of one rank, after an optimizer step (moments are made by the first one)."""
    weights = list(engine.modules[0].parameters())
    optimizer = engine.optimizer.chained_optimizers[0].optimizer
    shards = [shard for group in optimizer.param_groups for shard in group["params"]]
    for shard in shards:
        shard.grad = shard.new_empty(shard.shape)
    optimizer.step()
    moments = [tensor for state in optimizer.state.values() for tensor in state.values()]
    cut = [weight for weight in weights if getattr(weight, "tensor_model_parallel", False)]
    return {
        "cut": sum(weight.numel() for weight in cut),
        "whole": sum(weight.numel() for weight in weights) - sum(weight.numel() for weight in cut),
        "weights": sum(weight.nbytes for weight in weights),
        "weight buffers": sum(buffer.param_data.nbytes for buffer in engine.modules[0].buffers),
        "gradients": sum(buffer.grad_data.nbytes for buffer in engine.modules[0].buffers),
        "optimizer": sum(tensor.nbytes for tensor in [*shards, *moments]),
    }


def neighbors() -> dict[str, list[int]]:
    """The groups of the rank that is being rehearsed."""
    import torch.distributed as dist
    from megatron.core import parallel_state

    groups = {
        "tensor": parallel_state.get_tensor_model_parallel_group(),
        "data": parallel_state.get_data_parallel_group(),
        "pipeline": parallel_state.get_pipeline_model_parallel_group(),
    }
    return {name: dist.get_process_group_ranks(group) for name, group in groups.items()}


def saved_activations(engine: Any, tokens: int) -> int:
    """Bytes that autograd keeps of one sequence in this rank's layers, with attention that keeps what flash kernels do."""
    import torch

    known = {weight.untyped_storage()._cdata for weight in engine.modules[0].parameters()}
    found: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = storage
        return tensor

    if engine.parallel.overlap_param_gather:
        engine.modules[0].disable_forward_pre_hook(param_sync=False)
    row = torch.zeros(1, tokens, dtype=torch.long)
    with mock.patch("cpt.engine.kernels.scaled_dot_product_attention", flash()), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = engine.modules[0](row, torch.arange(tokens)[None], None)  # noqa: F841 - lives until all is counted
    return sum(storage.nbytes() for storage in found.values() if storage.nbytes() > 8 * tokens)


def flash() -> Any:
    """Attention that computes nothing and keeps q, k, v, out and the log-sum-exp [b, heads, s] in fp32."""
    import torch

    class Flash(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, v: Any) -> Any:
            out = torch.empty_like(q)
            ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
            return out

    return lambda q, k, v, **_: Flash.apply(q, k, v)


@pytest.fixture(scope="module", params=JOBS)
def job(request: pytest.FixtureRequest) -> tuple[RunConfig, dict[str, Any]]:
    """The config, and what its ranks hold."""
    return compose_config([f"experiment={request.param}"]), run_ranks(1, inspect, request.param)[0]


def test_rank_order_is_tensor_then_data_then_pipeline(job: tuple[RunConfig, dict[str, Any]]) -> None:
    config, found = job
    parallel, world = config.parallel, config.slurm.world_size
    tensor, stages, replicas = parallel.tensor_parallel_size, parallel.pipeline_parallel_size, parallel.data_parallel_size(world)
    assert found["last"] == world - 1
    assert found["neighbors"] == {
        "tensor": [place(config, tensor=rank, data=replicas - 1, pipeline=stages - 1) for rank in range(tensor)],
        "data": [place(config, tensor=tensor - 1, data=rank, pipeline=stages - 1) for rank in range(replicas)],
        "pipeline": [place(config, tensor=tensor - 1, data=replicas - 1, pipeline=rank) for rank in range(stages)],
    }
    assert max(found["neighbors"]["tensor"]) // config.slurm.tasks_per_node == min(found["neighbors"]["tensor"]) // config.slurm.tasks_per_node


def test_all_stages_together_are_the_model(job: tuple[RunConfig, dict[str, Any]]) -> None:
    config, found = job
    total = sum(stage["cut"] * config.parallel.tensor_parallel_size + stage["whole"] for stage in found["stages"])
    assert total == config.model.parameters


def test_bytes_are_the_planners(job: tuple[RunConfig, dict[str, Any]]) -> None:
    config, found = job
    for stage, held in enumerate(found["stages"]):
        planned = stage_memory(workload(config), stage)
        assert held["weights"] == planned["weights"]
        for part, bytes_held in (("weights", held["weight buffers"]), ("gradients", held["gradients"]), ("optimizer", held["optimizer"])):
            assert bytes_held == pytest.approx(planned[part], rel=PADDING), f"{part} of stage {stage}"
    assert found["held by last"]["weights"] == found["stages"][-1]["weights"], "each tensor-parallel rank holds as much"


def test_activations_are_the_planners(job: tuple[RunConfig, dict[str, Any]]) -> None:
    config, found = job
    assert found["saved"] == pytest.approx(config.train.sequence_length * stage_activations(workload(config), 1, 0), rel=0.01)
