"""Files of unequal sizes round a ring and from rank to rank: every byte arrives, and nobody waits for a disk that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt.checkpoint.records import FileRecord
from cpt.checkpoint.verify import hash_file
from cpt.core.errors import CptError
from cpt.core.world import World
from tests.ranks import run_ranks

pytestmark = pytest.mark.engine

SIZES = (20_000_001, 8 * 2**20, 3)
"""Of each rank's file: some pieces and a rest, one piece, less."""


def content(rank: int) -> bytes:
    return np.random.default_rng(rank).bytes(SIZES[rank])


def record(path: Path) -> FileRecord:
    return FileRecord(bytes=path.stat().st_size, hash=hash_file(path))


def join(world: World) -> Any:
    from cpt import engine
    from cpt.checkpoint.copies import Copies
    from cpt.config.parallel import ParallelConfig

    engine.initialize(world, ParallelConfig(), 1)
    return Copies()


def swap(world: World, folder: Path) -> bytes:
    """Rank 1's neighbor has no disk; rank 2 has nothing to give."""
    from cpt.checkpoint.copies import Arriving

    copies, (before, after) = join(world), ((world.rank - 1) % 3, (world.rank + 1) % 3)
    data = bytearray(content(world.rank))
    parcel = [memoryview(bytearray(f"receipt {world.rank}", "ascii")), memoryview(data)[:1000], memoryview(data)[1000:]]
    arriving = Arriving(folder / ("missing" if world.rank == 2 else "") / f"from_{before}")
    copies.swap(after, parcel if world.rank < 2 else [memoryview(bytearray())] * 3, before, arriving.take)
    assert arriving.receipt == (b"" if before == 2 else f"receipt {before}".encode())
    (folder / f"own_{before}_on_{world.rank}").write_bytes(content(before))
    expected = record(folder / f"own_{before}_on_{world.rank}")
    if world.rank == 1:
        arriving.land(expected)
        return (folder / "from_0").read_bytes()
    with pytest.raises(FileNotFoundError if world.rank == 2 else CptError):
        arriving.land(expected)
    return b""


def hand_on(world: World, folder: Path) -> None:
    """From 0 to 2 and from 2 to 1, in the same order on all ranks; the second is not what was announced."""
    copies, path = join(world), folder / f"file_{world.rank}"
    path.write_bytes(content(0))
    expected = record(path)
    if world.rank == 0:
        copies.send(2, path)
    elif world.rank == 2:
        copies.receive(0, folder / "came", expected)
        copies.send(1, folder / "came")
    else:
        with pytest.raises(CptError, match="sent were 3 with"):
            copies.receive(2, folder / "other", FileRecord(bytes=3, hash="no"))


def test_a_ring_of_unequal_files(tmp_path: Path) -> None:
    assert run_ranks(3, swap, tmp_path)[1] == content(0)


def test_from_rank_to_rank(tmp_path: Path) -> None:
    run_ranks(3, hand_on, tmp_path)
    assert (tmp_path / "came").read_bytes() == content(0) and not (tmp_path / "other").exists()
