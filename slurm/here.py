"""Ranks without SLURM: child processes on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from cpt.config.run import RunConfig
from cpt.core.heartbeat import Beat
from cpt.core.paths import RunPaths
from cpt.topology import Fabric
from slurm import script
from slurm.rank import STACKS
from slurm.steps import meeting


@dataclass
class Here:
    """This machine: ranks as child processes. Ranks can die and come back; nodes cannot, there is only one."""

    config: RunConfig
    rank_command: Sequence[str] = ()
    has_queue: bool = False
    restarts: int = 0
    deadline: float | None = None
    fabric: Fabric = field(default_factory=Fabric)

    def __post_init__(self) -> None:
        self.job = f"local-{os.getpid()}"
        self.host = socket.gethostname()
        self.nodes: Sequence[str] = [self.host]

    def examine(self, run: RunPaths, attempt: int) -> dict[str, str]:
        """Whoever started this is on it."""
        return {}

    def start(self, run: RunPaths, attempt: int, nodes: Sequence[str]) -> LocalStep:
        """All ranks, each with its own log."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SUBMITIT_"))}
        shared = inherited | script.environment(self.config) | meeting("127.0.0.1", str(os.getpid()), attempt, self.deadline)
        ranks: list[subprocess.Popen[bytes]] = []
        with ExitStack() as files:
            for rank in range(self.config.slurm.world_size):
                log = files.enter_context(open(run.attempt(attempt).log(rank), "ab"))
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.config.slurm.world_size)}
                ranks.append(subprocess.Popen(script.rank_argv(run, rank_command=self.rank_command), stdout=log, stderr=subprocess.STDOUT, env=shared | own))
        return LocalStep(ranks)

    def answering(self, nodes: Sequence[str]) -> set[str]:
        """We run on it."""
        return set(nodes)

    def guard(self, run: RunPaths, healthy: Sequence[str]) -> None:
        """Nobody could take over."""

    def unfit(self, nodes: Sequence[str]) -> dict[str, str]:
        """We run on it."""
        return {}

    def cancelled(self) -> bool:
        """Nobody can tell."""
        return False

    def requeue(self, run: RunPaths, exclude: Sequence[str]) -> str:
        """There is no queue; whoever told us to stop starts us again."""
        return ""


@dataclass
class LocalStep:
    """Child processes; when one fails the others are ended, as srun does."""

    ranks: Sequence[subprocess.Popen[bytes]]
    failed: int = 0

    def poll(self) -> int | None:
        """The first failure ends the others, and stays the answer: what they then end with is our doing."""
        codes = [rank.poll() for rank in self.ranks]
        if not self.failed and (failed := next((code for code in codes if code), 0)):
            self.failed = failed
            self._end()
        return self.failed or (None if None in codes else 0)

    def tell(self) -> None:
        """Those that still live."""
        self._send(signal.SIGUSR2)

    def stacks(self, blamed: Sequence[Beat]) -> None:
        """Into their logs."""
        self._send(STACKS)

    def kill(self) -> None:
        """At once."""
        self._send(signal.SIGKILL)
        for rank in self.ranks:
            rank.wait()

    def _end(self) -> None:
        self._send(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        for rank in self.ranks:
            with suppress(subprocess.TimeoutExpired):
                rank.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def _send(self, number: signal.Signals) -> None:
        for rank in self.ranks:
            if rank.poll() is None:
                rank.send_signal(number)


_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL for the siblings of a dead rank; as SLURM's KillWait on the development cluster."""
