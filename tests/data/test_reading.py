from __future__ import annotations

import itertools
import threading

import pytest

from cpt.data.reading import Reader


def test_reads_in_order_and_no_further_ahead_than_told() -> None:
    started: list[int] = []
    enough = threading.Event()

    def read(start: int) -> int:
        started.append(start)
        if len(started) == 4:  # one was taken, two wait, one is in hand
            enough.set()
        return start * 10

    reader = Reader(read, itertools.count(), depth=2)
    assert reader.next() == 0
    assert enough.wait(10) and len(started) == 4
    assert [reader.next() for _ in range(4)] == [10, 20, 30, 40]
    reader.close()
    assert not any(thread.name == "reader" for thread in threading.enumerate())


def test_what_stops_the_thread_is_raised_after_what_it_had_read() -> None:
    def read(start: int) -> int:
        if start == 2:
            raise OSError("the file system is gone")
        return start

    reader = Reader(read, range(9), depth=4)
    assert [reader.next(), reader.next()] == [0, 1]
    with pytest.raises(OSError, match="the file system is gone"):
        reader.next()
    reader.close()
