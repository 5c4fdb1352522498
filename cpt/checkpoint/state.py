"""All of a rank's training state in one list of chunks, and a checkpoint put back into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cpt.checkpoint import generators
from cpt.checkpoint.chunks import Chunk, optimizers, training_chunks, weight_chunks
from cpt.checkpoint.reader import CheckpointReader


@torch.no_grad()
def collect(models: Sequence[Any], optimizer: Any, rank: int) -> list[Chunk]:
    """What `rank` saves, and more that only others save. `models`: this rank's model chunks."""
    return training_chunks(models, optimizer) + generators.chunks(rank)


@torch.no_grad()
def load(folder: Path, models: Sequence[Any], optimizer: Any, optimizer_step: int) -> None:
    """Fill model and optimizer from a checkpoint of any layout. Collective: weights travel from their owners to all replicas."""
    reader = CheckpointReader(folder)
    for chunk in training_chunks(models, optimizer):
        reader.load(chunk)
    for one in optimizers(optimizer):
        for group in one.optimizer.param_groups:
            group["step"] = optimizer_step
        one._copy_main_params_to_model_params()
        for model in one.model_chunks:
            model.start_param_sync(force_sync=True)


@torch.no_grad()
def load_weights(folder: Path, models: Sequence[Any]) -> None:
    """Fill the model alone, in its own precision."""
    reader = CheckpointReader(folder)
    for chunk in weight_chunks(models):
        reader.load(chunk)


def load_generators(folder: Path, rank: int) -> None:
    """Put this rank's random generators where they were. Raises `CptError` when one is not there: only the layout that saved them has them."""
    reader = CheckpointReader(folder)
    generators.restore({name: reader.read(name) for name in generators.names(rank)})


def optimizer_step(optimizer: Any) -> int:
    """Updates that Adam has made, by this rank's own state; 0 where it has none."""
    return max((int(group.get("step", 0)) for one in optimizers(optimizer) for group in one.optimizer.param_groups if group["params"]), default=0)
