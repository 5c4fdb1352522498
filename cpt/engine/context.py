"""Context parallelism: which tokens of a row this rank holds, and rows put together again.

A row of s tokens over C ranks is cut into 2 C chunks; rank r holds chunks r and 2 C - 1 - r, so that all ranks have the
same work under a causal mask (Llama 3, arXiv 2407.21783, section 3.3.2).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from megatron.core import parallel_state

IntArray = npt.NDArray[np.int64]


def order(length: int, size: int) -> IntArray:
    """[size, length / size]: the positions of a row that each rank holds, in its order."""
    if size == 1:
        return np.arange(length)[None]
    chunks = np.arange(length).reshape(2 * size, -1)
    return np.stack([np.concatenate([chunks[rank], chunks[2 * size - 1 - rank]]) for rank in range(size)])


def held(length: int) -> torch.Tensor:
    """[length / C] int64: the positions that this rank holds."""
    return torch.from_numpy(order(length, parallel_state.get_context_parallel_world_size())[parallel_state.get_context_parallel_rank()])


def whole_rows(mine: torch.Tensor) -> torch.Tensor:
    """[b, s / C, ...] of this rank -> [b, s, ...] on every rank of the group, in the order of the tokens. Not differentiable."""
    size = parallel_state.get_context_parallel_world_size()
    if size == 1:
        return mine
    parts = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(parts, mine.contiguous(), group=parallel_state.get_context_parallel_group())
    together = torch.cat(parts, dim=1)
    return together[:, np.argsort(order(together.shape[1], size).reshape(-1))]
