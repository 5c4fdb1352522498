"""Who attends to whom, when that is not simply every earlier token of the row: documents, and context parallelism.

Each context-parallel rank gathers all keys and values (as Llama 3 did) and attends in segments: the queries of one document in
one of its chunks, and that document's keys up to the last of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from megatron.core.packed_seq_params import PackedSeqParams

from cpt.engine.context import order

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Segments:
    """Causal, bottom-right aligned attention problems of one micro-batch, in the order of its queries (row by row)."""

    lengths: list[tuple[int, int]]
    """(queries, keys) of each."""
    cu_q: torch.Tensor
    cu_k: torch.Tensor
    """int32 [n + 1]: cumulative lengths, as varlen kernels want them."""
    keys: torch.Tensor | None
    """int64 [all keys]: which rows of the gathered keys [b * s] make the segments; None: all of them as they are."""

    @property
    def longest_q(self) -> int:
        """Queries of the longest segment."""
        return max(queries for queries, _ in self.lengths)

    @property
    def longest_k(self) -> int:
        """Keys of the longest segment."""
        return max(keys for _, keys in self.lengths)


@dataclass
class Documents(PackedSeqParams):
    """Rides through megatron-core's layers to core attention, into recomputation too; `positions` [b, s / C] restart with each document."""

    segments: Segments | None = None
    positions: torch.Tensor | None = None


def documents(tokens: torch.Tensor, end_of_document: int, rank: int, size: int) -> Documents:
    """Of whole rows [b, s]: each document ends with its end-of-document token. `rank` of `size` in the context-parallel group."""
    rows = tokens.cpu().numpy()
    starts = [tuple(np.flatnonzero(np.r_[True, row[:-1] == end_of_document]).tolist()) for row in rows]
    length, mine = tokens.shape[1], order(tokens.shape[1], size)[rank]
    positions = np.stack([(np.arange(length) - np.maximum.accumulate(_at(row, length)))[mine] for row in starts])
    return Documents(
        qkv_format="sbhd",  # not packed: rows stay rows, so that pipelines and norms see the shapes that they always see
        max_seqlen_q=length,
        max_seqlen_kv=length,
        segments=segments(tuple(starts), length, rank, size),
        positions=torch.from_numpy(positions).to(torch.cuda.current_device()),
    )


def _at(starts: Sequence[int], length: int) -> IntArray:
    """The position itself where a document starts, else 0."""
    marks = np.zeros(length, dtype=np.int64)
    marks[list(starts)] = starts
    return marks


@lru_cache(maxsize=8)  # without documents every micro-batch has the same
def segments(starts: tuple[tuple[int, ...], ...], length: int, rank: int, size: int) -> Segments:
    """`starts`: where each row's documents begin, 0 first; a row without documents has one."""
    place = np.argsort(order(length, size).reshape(-1))
    found = [(row, *ranges) for row, bounds in enumerate(starts) for ranges in _ranges(bounds, length, rank, size)]
    lengths = [(stop - start, stop - first) for _, first, start, stop in found]
    keys = None if size == 1 else torch.from_numpy(np.concatenate([row * length + place[first:stop] for row, first, _, stop in found]))
    device = torch.cuda.current_device()
    cumulative = torch.from_numpy(np.cumsum([(0, 0), *lengths], axis=0, dtype=np.int32)).to(device)
    return Segments(lengths, cumulative[:, 0].contiguous(), cumulative[:, 1].contiguous(), None if keys is None else keys.to(device))


def _ranges(bounds: Sequence[int], length: int, rank: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(first position of the document, first query, end of queries) for every document in every chunk of this rank."""
    chunk = length // (2 * size)
    chunks = [(0, length)] if size == 1 else [(n * chunk, (n + 1) * chunk) for n in (rank, 2 * size - 1 - rank)]
    for begin, end in chunks:
        for first, last in zip(bounds, [*bounds[1:], length], strict=True):
            if max(begin, first) < min(end, last):
                yield first, max(begin, first), min(end, last)
