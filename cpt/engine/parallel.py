"""Process groups: one per rank, NCCL where CUDA is, gloo elsewhere."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

from cpt.config.parallel import ParallelConfig
from cpt.core.world import World


def initialize(world: World, parallel: ParallelConfig, seed: int, timeout_minutes: float = 10) -> None:
    """Join all ranks and cut the world into TP x CP x PP x DP. Raises when the world cannot be joined in time."""
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank)
    os.environ.update(MASTER_ADDR=world.master_addr, MASTER_PORT=str(world.master_port or _free_port()))
    dist.init_process_group(
        backend="nccl" if torch.cuda.is_available() else "gloo",
        rank=world.rank,
        world_size=world.world_size,
        timeout=timedelta(minutes=timeout_minutes),
    )
    cut_world(parallel, seed)


def cut_world(parallel: ParallelConfig, seed: int) -> None:
    """Groups of the joined ranks: TP x PP x DP, neighbors in TP first; and random states, another for each part of the model."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_parallel_size,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline_size if parallel.virtual_pipeline_size > 1 else None,
        expert_model_parallel_size=parallel.expert_parallel_size,
        expert_tensor_parallel_size=1,  # experts are narrow: spread, never cut
        context_parallel_size=parallel.context_parallel_size,
        create_gloo_process_groups=not rehearsed(),
    )
    seed_generators(seed)


def seed_generators(seed: int) -> None:
    """All of this rank's random generators; those of tensor-parallel regions differ by TP rank."""
    torch.manual_seed(seed)
    model_parallel_cuda_manual_seed(seed)


def rehearsed() -> bool:
    """Whether the other ranks are only said to be there (`cpt.engine.rehearsal`)."""
    return bool(dist.get_backend() == "fake")


def finalize() -> None:
    """Leave the world; only for orderly ends (after a failure the process just exits, others may be gone)."""
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def data_rank() -> tuple[int, int]:
    """(data-parallel rank, data-parallel size)."""
    return parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()


def describe(parallel: ParallelConfig) -> str:
    """The layout of the joined world in a few letters: `TP2 x PP2 x DP2`."""
    context = f" x CP{parallel.context_parallel_size}" if parallel.context_parallel_size > 1 else ""
    virtual = f" x VP{parallel.virtual_pipeline_size}" if parallel.virtual_pipeline_size > 1 else ""
    experts = f" x EP{parallel.expert_parallel_size}" if parallel.expert_parallel_size > 1 else ""
    return f"TP{parallel.tensor_parallel_size}{context} x PP{parallel.pipeline_parallel_size}{virtual} x DP{data_rank()[1]}{experts}"


def counts_once() -> bool:
    """One rank per data-parallel replica, on the last stage: whoever adds up losses must not count the copies of TP and CP."""
    copies = parallel_state.get_tensor_model_parallel_rank() + parallel_state.get_context_parallel_rank()
    return bool(parallel_state.is_pipeline_last_stage(ignore_virtual=True)) and copies == 0


def agree_on[T](value: T) -> T:
    """What rank 0 says. Ranks on different nodes may see a shared file system at different moments."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
