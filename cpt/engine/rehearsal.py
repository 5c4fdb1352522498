"""Any rank of a job of any size, built in this process alone: a process group that is alone and tensors without storage.

    with rehearse(World(rank=359, world_size=480), config.parallel):
        engine = Engine(config.model, config.parallel, config.train.precision, config.optimizer)

The model, DDP buffers and distributed optimizer are the real ones, so what they would hold can be counted; nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import random
from torch.testing._internal.distributed.fake_pg import FakeStore

from cpt.config.parallel import ParallelConfig
from cpt.core.world import World
from cpt.engine.parallel import cut_world, finalize


@contextmanager
def rehearse(world: World, parallel: ParallelConfig) -> Iterator[None]:
    """Stand in for rank `world.rank` of `world.world_size`; collectives return at once and move nothing."""
    meta = torch.device("meta")
    dist.init_process_group("fake", rank=world.rank, world_size=world.world_size, store=FakeStore())
    try:
        cut_world(parallel, seed=0)
        with (
            meta,
            mock.patch.object(torch.cuda, "current_device", lambda: meta),
            mock.patch.object(torch.nn.Module, "cuda", lambda module, *_: module),
            mock.patch.object(random, "_get_cuda_rng_state", lambda *_, **__: None),
            mock.patch.object(random, "_set_cuda_rng_state", lambda *_, **__: None),
        ):
            yield
    finally:
        finalize()
