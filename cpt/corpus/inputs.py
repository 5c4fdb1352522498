"""From a corpus's files to shards: what one task reads. A function of the files' names, sizes and times alone, so whoever plans finds the same shards.

A shard holds whole files of one source, or a piece of a large one: plain JSON lines are cut at bytes (a piece has the lines that begin in it); files of
other kinds are read from end to end by one task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fsspec

from cpt.core.artifacts import Artifact
from cpt.core.errors import Problem, UserError
from cpt.corpus.formats import expand, local

MOST_ROWS = 1 << 32
"""Documents of one shard: a document's number is shard * 2^32 + row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece(Artifact):
    """Bytes `start : stop` of a file that has `size` of them; `version` changes when the file does."""

    path: str
    start: int
    stop: int
    size: int
    version: str

    @property
    def whole(self) -> bool:
        """Whether it is all of the file."""
        return (self.start, self.stop) == (0, self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard(Artifact):
    """What one task reads. `number` counts over the corpus in order of sources: of two documents, the one with the smaller number came first."""

    number: int
    source: str
    index: int
    """Within the source."""
    pieces: list[Piece]

    @property
    def bytes(self) -> int:
        """Of input, compressed as it lies there."""
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.index:05d}"


def plan_shards(files: Mapping[str, Sequence[str]], shard_bytes: int) -> list[Shard]:
    """Source -> paths and patterns, in order. Raises `UserError` for what matches no file."""
    shards: list[Shard] = []
    for source, paths in files.items():
        groups = _groups([piece for path in expand(paths) for piece in _pieces(path, shard_bytes)], shard_bytes)
        shards += [Shard(number=len(shards) + index, source=source, index=index, pieces=group) for index, group in enumerate(groups)]
    return shards


def require_unchanged(piece: Piece) -> None:
    """Raises `UserError` when the file is not the one that was planned for."""
    try:
        found = _stat(piece.path)
    except FileNotFoundError:
        found = (0, "gone")
    if found != (piece.size, piece.version):
        what = "is gone" if found[1] == "gone" else f"has {found[0]} bytes and another time; planned were {piece.size}"
        fix = "put it back, or cpt prepare again: it plans anew and makes what is missing"
        raise UserError(Problem(where=piece.path, what=what, why="the corpus was planned from the file as it was", fix=fix))


def _pieces(path: str, shard_bytes: int) -> Iterator[Piece]:
    size, version = _stat(path)
    parts = max(1, -(-size // shard_bytes)) if path.endswith(".jsonl") else 1
    for part in range(parts):
        yield Piece(path=path, start=size * part // parts, stop=size * (part + 1) // parts, size=size, version=version)


def _groups(pieces: Sequence[Piece], shard_bytes: int) -> Iterator[list[Piece]]:
    """Neighbors together, up to the size."""
    group: list[Piece] = []
    for piece in pieces:
        if group and sum(one.stop - one.start for one in [*group, piece]) > shard_bytes:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _stat(path: str) -> tuple[int, str]:
    """(bytes, version)."""
    if "://" not in path:
        found = Path(local(path)).stat()
        return found.st_size, str(found.st_mtime_ns)
    system, place = fsspec.core.url_to_fs(path)
    return int(system.size(place)), str(system.ukey(place))
