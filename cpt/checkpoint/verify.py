"""Is what lies on the disk what was written? Reads every byte; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import xxhash

from cpt.checkpoint.records import FileRecord

_PIECE = 8 * 2**20
_THREADS = 8
"""Reading waits for the disk and hashing leaves the interpreter lock, so several go side by side."""


def hash_file(path: Path) -> str:
    """xxh3_128 of a file, hex. Raises OSError."""
    hasher, buffer = xxhash.xxh3_128(), memoryview(bytearray(_PIECE))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            hasher.update(buffer[:size])
    return hasher.hexdigest()


def damage(folder: Path, files: Mapping[str, FileRecord], advance: Callable[[int], None] = lambda _: None) -> dict[str, str]:
    """File -> what is wrong with it, for those of `files` that are not as recorded. `advance` is told the bytes of each file once it is done.

    Raises OSError when the disk does not answer."""
    with ThreadPoolExecutor(_THREADS) as pool:
        running = {pool.submit(_wrong, folder / name, file): name for name, file in files.items()}
        found: dict[str, str] = {}
        for done in as_completed(running):
            name = running[done]
            advance(files[name].bytes)
            if why := done.result():
                found[name] = why
    return dict(sorted(found.items()))


def share[T](items: Iterable[T], rank: int, world_size: int) -> list[T]:
    """This rank's part of a list that all ranks work through together."""
    return list(items)[rank::world_size]


def _wrong(path: Path, file: FileRecord) -> str:
    """Raises OSError when the disk cannot be read: that says nothing of the checkpoint."""
    if not path.is_file():
        return "is not there"
    if (size := path.stat().st_size) != file.bytes:
        return f"holds {size} bytes instead of {file.bytes}"
    return "" if hash_file(path) == file.hash else "has other bytes than were written"
