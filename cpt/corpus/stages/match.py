"""`match`: documents that share a key, in one band and one range of keys: edges from the first of them to each of the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cpt.corpus.clusters import Numbers, edges_of
from cpt.corpus.inputs import MOST_ROWS, Shard
from cpt.corpus.stages.records import CountRecord, describe
from cpt.corpus.stages.select import Selected
from cpt.corpus.tables import open_column, save_column


def match(shards: Sequence[tuple[Shard, Selected]], out: Path, band: int, part: tuple[int, int], cut: Mapping[int, tuple[Path, float]]) -> None:
    """`part`: which of how many ranges of keys. `cut`: shard number -> (its scores, the lowest that stays).

    Holds the keys of one range of one band: 16 bytes a document there, and 40 more while they are sorted.
    """
    begun = time.process_time()
    found = list(_in_range(shards, band, part, cut))
    none = np.empty(0, dtype=np.uint64)
    edges = edges_of(np.concatenate([keys for keys, _ in found] or [none]), np.concatenate([numbers for _, numbers in found] or [none]))
    file = out.with_suffix(".npy")
    out.unlink(missing_ok=True)
    save_column(file, edges)
    CountRecord(files=describe([file]), seconds=time.process_time() - begun, count=edges.shape[1]).save(out)


def below_cut(scores: Path, cut: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """[n]: which documents of a shard the classifier leaves out."""
    return np.asarray(open_column(scores)) < np.float32(cut)


def _in_range(
    shards: Sequence[tuple[Shard, Selected]], band: int, part: tuple[int, int], cut: Mapping[int, tuple[Path, float]]
) -> Iterator[tuple[Numbers, Numbers]]:
    """(keys, document numbers) of each shard."""
    low, high = (2**64 * place // part[1] for place in (part[0], part[0] + 1))
    for shard, selected in shards:
        keys = open_column(selected.keys)[band]
        start = int(np.searchsorted(keys, np.uint64(max(low, 1))))  # 0 is no key
        stop = len(keys) if high == 2**64 else int(np.searchsorted(keys, np.uint64(high)))
        rows = np.array(open_column(selected.order)[band, start:stop])
        mine = np.array(keys[start:stop])
        if shard.number in cut:
            stays = ~below_cut(*cut[shard.number])[rows]
            mine, rows = mine[stays], rows[stays]
        yield mine, rows.astype(np.uint64) + np.uint64(shard.number * MOST_ROWS)
