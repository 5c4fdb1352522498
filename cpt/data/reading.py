"""`Reader`: a thread that reads batches before they are asked for. What stops it is raised where the batch is asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable


class Reader[Item]:
    """`read(start)` for each of `starts`, in order, at most `depth` ahead. The thread starts when the first is asked for."""

    def __init__(self, read: Callable[[int], Item], starts: Iterable[int], depth: int) -> None:
        self._read, self._starts = read, starts
        self._ready: queue.Queue[Item | BaseException] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def next(self) -> Item:
        """Wait for the next one. Raises what reading it raised."""
        if self._thread.ident is None:
            self._thread.start()
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """Return when the thread has ended."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            for start in self._starts:
                if not self._offer(self._read(start)):
                    return
        except BaseException as error:  # raised again by `next`
            self._offer(error)

    def _offer(self, item: Item | BaseException) -> bool:
        """False when nobody wants it any more."""
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
