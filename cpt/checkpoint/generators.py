"""Random generators of one rank: torch's, CUDA's and the named ones that megatron draws dropout from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cpt.checkpoint.chunks import Chunk


def chunks(rank: int) -> list[Chunk]:
    """Their states [n] uint8, as tensors that nobody shares."""
    return [Chunk(name, tuple(state.shape), (0,), state, written=True) for name, state in _states(rank).items()]


def names(rank: int) -> list[str]:
    """What `rank` saves, by tensor name."""
    return list(_states(rank))


def restore(states: Mapping[str, torch.Tensor]) -> None:
    """Go on where `states` were taken. Needs all of a rank's states."""
    tracker, tracked = _tracker(), {}
    for name, state in states.items():
        kind = name.split(".", 2)[2]
        if kind == "cpu":
            torch.set_rng_state(state)
        elif kind == "cuda":
            torch.cuda.set_rng_state(state)
        else:
            tracked[kind.removeprefix("tracker.")] = state
    tracker.set_states(tracked)


def _states(rank: int) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state()}
    states |= {f"tracker.{name}": state for name, state in _tracker().get_states().items()}
    return {f"rng.{rank:05d}.{name}": state for name, state in states.items()}


def _tracker() -> Any:
    """Imported late: the engine, which this room cannot see, prepares torch before megatron is loaded."""
    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    return get_cuda_rng_tracker()
