"""Files from one rank's disk or memory to another rank's disk, over gloo, a piece at a time: what the fast tier's copies travel by.

Threads may call it while training uses its own groups. Memory is bounded by a piece each way, however long a file is.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import xxhash

from cpt.checkpoint.records import FileRecord
from cpt.checkpoint.writer import write_all
from cpt.core.errors import CptError

_PIECE = 8 * 2**20
"""Bytes that travel at a time."""

_SEGMENTS = 3
"""A receipt, or nothing; then the file in two parts, for one that is still in memory has its header apart."""

Take = Callable[[int, memoryview], None]
"""Given the number of a segment, and the next bytes of it."""


class Copies:
    """This rank's line to the others. Making one is collective; what travels is known to sender and receiver alone."""

    def __init__(self) -> None:
        self._group = dist.new_group(backend="gloo")

    def swap(self, to: int, segments: Sequence[memoryview], source: int, take: Take) -> None:
        """Send segments to one rank while taking another's, as in a ring, in which nobody may wait for being heard before hearing."""
        sizes = torch.zeros(_SEGMENTS, dtype=torch.int64)
        self._both(torch.tensor([len(segment) for segment in segments]), to, sizes, source)
        buffer = torch.empty(min(_PIECE, int(sizes.max())), dtype=torch.uint8)
        sent, taken = _pieces([len(segment) for segment in segments]), _pieces(sizes.tolist())
        while True:
            mine, theirs = next(sent, None), next(taken, None)
            if mine is None and theirs is None:
                return
            outgoing = torch.frombuffer(segments[mine[0]][mine[1] : mine[2]], dtype=torch.uint8) if mine else None
            incoming = buffer[: theirs[2] - theirs[1]] if theirs else None
            self._both(outgoing, to, incoming, source)
            if theirs and incoming is not None:
                take(theirs[0], memoryview(incoming.numpy()))

    def send(self, to: int, path: Path) -> None:
        """A whole file. The other rank calls `receive`."""
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped, memoryview(mapped) as whole:
            dist.send(torch.tensor([len(whole)]), to, group=self._group)
            for start in range(0, len(whole), _PIECE):
                dist.send(torch.frombuffer(whole[start : start + _PIECE], dtype=torch.uint8), to, group=self._group)

    def receive(self, source: int, path: Path, expected: FileRecord) -> None:
        """That file, on disk under its name only when it is as `expected`. Raises `CptError` when it is not, OSError when the disk fails."""
        size = torch.zeros(1, dtype=torch.int64)
        dist.recv(size, source, group=self._group)
        arriving, buffer = Arriving(path), torch.empty(min(_PIECE, int(size)), dtype=torch.uint8)
        for start in range(0, int(size), _PIECE):
            part = buffer[: int(size) - start]
            dist.recv(part, source, group=self._group)
            arriving.take(1, memoryview(part.numpy()))
        arriving.land(expected)

    def _both(self, outgoing: torch.Tensor | None, to: int, incoming: torch.Tensor | None, source: int) -> None:
        works = [] if outgoing is None else [dist.isend(outgoing, to, group=self._group)]
        works += [] if incoming is None else [dist.irecv(incoming, source, group=self._group)]
        for work in works:
            assert work
            work.wait()


class Arriving:
    """A file that comes in pieces. A disk that fails is said at the end: the sender must not be left waiting for it."""

    def __init__(self, path: Path) -> None:
        self.path, self._temp = path, path.with_name(f"{path.name}.part")
        self.receipt = bytearray()
        """JSON that came ahead of the file; empty when the sender had no file to give."""
        self._size, self._hasher = 0, xxhash.xxh3_128()
        self._descriptor = -1
        self._error: OSError | None = None
        self._attempt(self._open)

    def take(self, segment: int, piece: memoryview) -> None:
        """The next bytes; of the receipt when `segment` is 0."""
        if segment == 0:
            self.receipt += piece
            return
        self._size += len(piece)
        self._hasher.update(piece)
        self._attempt(lambda: write_all(self._descriptor, piece))

    def land(self, expected: FileRecord) -> None:
        """Synced and under its name. Raises `CptError` when other bytes came, OSError when the disk failed."""
        self._attempt(lambda: os.fsync(self._descriptor))
        self.drop()
        if self._error:
            raise self._error
        came = FileRecord(bytes=self._size, hash=self._hasher.hexdigest())
        if came != expected:
            raise CptError(f"{self.path.name} came as {came.bytes} bytes with hash {came.hash}, sent were {expected.bytes} with {expected.hash}")
        os.replace(self._temp, self.path)

    def drop(self) -> None:
        """Nothing more comes."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        self._descriptor = os.open(self._temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def _attempt(self, call: Callable[[], None]) -> None:
        """The first error of the disk ends the writing, not the taking."""
        try:
            if self._error is None:
                call()
        except OSError as error:
            self._error = error


def _pieces(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(segment, begin, end) of all pieces, in order."""
    for segment, size in enumerate(sizes):
        for start in range(0, size, _PIECE):
            yield segment, start, min(start + _PIECE, size)
