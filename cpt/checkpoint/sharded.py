"""The bytes of a checkpoint: megatron-core's distributed format, which loads at any TP x PP x DP.

Every rank calls `save` and `load`. Optimizer state is `fully_reshardable`: each moment has the shape of its parameter.
"""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cpt.checkpoint.store import CheckpointStore, CompleteRecord

_METADATA = {"distrib_optim_sharding_type": "fully_reshardable"}


def save(store: CheckpointStore, step: int, layout: str, chunks: Sequence[Any], optimizer: Any, train: Mapping[str, int]) -> CompleteRecord | None:
    """Write a checkpoint and publish it. `train` are plain numbers, `consumed_samples` among them, the same on all ranks. Rank 0 gets the record."""
    _write_in_process()
    if dist.get_rank() == 0:
        store.begin(step)
    dist.barrier()
    folder = store.begin_path(step)
    _bytes().save(_state(chunks, optimizer, is_loading=False) | {"train": dict(train)}, str(folder))
    dist.barrier()
    record = store.publish(step, layout, train["consumed_samples"]) if dist.get_rank() == 0 else None
    dist.barrier()
    return record


def load(folder: Path, chunks: Sequence[Any], optimizer: Any) -> dict[str, int]:
    """Fill model chunks and optimizer from a checkpoint of any layout; returns the `train` numbers."""
    # DistributedOptimizer copies into parameters that require a gradient and does not say no_grad itself.
    with torch.no_grad():
        state = _bytes().load(_state(chunks, optimizer, is_loading=True), str(folder))
        _fill(chunks, state["model"])
        optimizer.load_state_dict(state["optimizer"])
    return dict(state["train"])


def load_weights(folder: Path, chunks: Sequence[Any]) -> dict[str, int]:
    """Fill the model chunks alone; returns the `train` numbers."""
    state = _bytes().load({"model": _weights(chunks)}, str(folder))
    _fill(chunks, state["model"])
    return dict(state["train"])


def _bytes() -> Any:
    """Imported late: the engine, which this room cannot see, prepares torch before megatron is loaded."""
    from megatron.core import dist_checkpointing

    return dist_checkpointing


def _weights(chunks: Sequence[Any]) -> dict[str, Any]:
    """By chunk; the tensors' own keys are global, so that another cut finds them."""
    return {str(number): gpt.sharded_state_dict() for number, gpt in enumerate(chunks)}


def _fill(chunks: Sequence[Any], weights: Mapping[str, Any]) -> None:
    for number, gpt in enumerate(chunks):
        gpt.load_state_dict(weights[str(number)])


def _state(chunks: Sequence[Any], optimizer: Any, is_loading: bool) -> dict[str, Any]:
    weights = _weights(chunks)
    return {"model": weights, "optimizer": optimizer.sharded_state_dict(weights, is_loading=is_loading, metadata=_METADATA)}


def _write_in_process() -> None:
    """megatron hands write results through a queue in a freshly spawned manager process, seconds on the first save; a save in this process needs none."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    filesystem_async.get_write_results_queue = lambda *_, **__: queue.Queue()
