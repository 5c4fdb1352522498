"""Ranks as forks of one process that has imported torch and megatron once: eight ranks start in a second instead of a minute."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from cpt.core.world import World

FORK = multiprocessing.get_context("fork")
TIMEOUT = 240.0
"""Seconds; a hang must end the test, not the suite."""


_PORTS = count(os.getpid() % 1000)


def free_port() -> int:
    """Each of the workers has its own, below those that the system deals out: a port that is only looked for is another's a moment later."""
    first = 12_000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = first + next(_PORTS) % 1000
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Ranks:
    """`size` processes that call `function(world, *args)`; output goes to `log` when given."""

    def __init__(self, size: int, function: Callable[..., Any], *args: Any, log: Path | None = None) -> None:
        import transformers.models.llama.modeling_llama  # noqa: F401 - the same

        import cpt.engine  # noqa: F401 - loaded here, once, before the forks

        self.results = FORK.Queue()
        port = free_port()
        worlds = [World(rank=rank, local_rank=rank, world_size=size, master_port=port) for rank in range(size)]
        self.processes = [FORK.Process(target=_child, args=(self.results, world, function, args, log), daemon=True) for world in worlds]
        for process in self.processes:
            process.start()

    def kill(self) -> None:
        """SIGKILL to all, as the power would."""
        for process in self.processes:
            process.kill()  # a word to the dead is no error
        for process in self.processes:
            process.join()

    def signal(self, number: signal.Signals, rank: int = 0) -> None:
        os.kill(self.processes[rank].pid or 0, number)

    def join(self) -> list[Any]:
        """What each rank returned, by rank. Raises with the first rank's traceback when one failed."""
        found: dict[int, Any] = {}
        while len(found) < len(self.processes):
            try:
                rank, good, value = self.results.get(timeout=TIMEOUT)
            except queue.Empty:
                self.kill()
                raise AssertionError(f"only ranks {sorted(found)} answered in {TIMEOUT} s") from None
            if not good:
                self.kill()
                raise RankFailed(rank, *value)
            found[rank] = value
        for process in self.processes:
            process.join()
        return [found[rank] for rank in range(len(self.processes))]


class RankFailed(AssertionError):
    """A rank raised; `kind` is the exception's name."""

    def __init__(self, rank: int, kind: str, message: str, trace: str) -> None:
        super().__init__(f"rank {rank}: {kind}: {message}\n{trace}")
        self.kind, self.message = kind, message


def run_ranks(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Start, wait, return by rank."""
    return Ranks(size, function, *args).join()


def _child(results: Any, world: World, function: Callable[..., Any], args: tuple[Any, ...], log: Path | None) -> None:
    if log:
        sys.stdout = sys.stderr = open(f"{log}.{world.rank}", "a")  # noqa: SIM115 - lives as long as the process
    try:
        results.put((world.rank, True, function(world, *args)))
    except BaseException as error:
        results.put((world.rank, False, (type(error).__name__, str(error), traceback.format_exc())))
    results.close()
    results.join_thread()
    os._exit(0)
