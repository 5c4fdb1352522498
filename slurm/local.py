"""The same run without SLURM: one detached supervisor on this machine starts the ranks, and asks the same recovery.

Ranks can die and resume; nodes cannot, there is only one.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.errors import EXIT_OURS, CptError
from cpt.core.paths import RunPaths
from slurm import recovery, script
from slurm.environment import ATTEMPT, master_port
from slurm.recovery import Action, Verdict

_NO_LIMIT = 60 * 24 * 365.0
"""Minutes. A year: nobody else waits for this machine."""

_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL for the siblings of a dead rank; as SLURM's KillWait on the development cluster."""


@dataclass(frozen=True)
class Supervisor:
    """What the detached process runs: these runs, one after the other. Raises `CptError` when one of them fails."""

    runs: Sequence[Path]
    rank_command: Sequence[str] = ()

    def __call__(self) -> list[str]:
        """How each run ended. A failed one does not keep the next from its turn, a stop does."""
        verdicts: list[Verdict] = []
        for run in self.runs:
            verdicts.append(Watch(RunPaths(run), self.rank_command).keep_alive())
            if verdicts[-1].action is Action.requeue:
                break
        if failed := [verdict.message for verdict in verdicts if verdict.action not in (Action.done, Action.requeue)]:
            raise CptError("; ".join(failed))
        return [verdict.message for verdict in verdicts]


def start(folder: Path, supervisors: Sequence[Supervisor]) -> list[int]:
    """Start each supervisor as a job of submitit's local executor; returns their pids at once. They outlive this terminal."""
    import submitit

    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(timeout_min=_NO_LIMIT, visible_gpus=_visible_gpus(), gpus_per_node=len(_visible_gpus()), stderr_to_stdout=True)
    with _deaf():
        return [int(executor.submit(supervisor).job_id) for supervisor in supervisors]


@dataclass
class Watch:
    """Keeps one run alive: attempt after attempt until recovery says otherwise."""

    run: RunPaths
    rank_command: Sequence[str] = ()
    told: bool = False
    """Somebody wants this to stop."""
    ranks: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def keep_alive(self) -> Verdict:
        """Returns the last verdict; `requeue` only when it was told to stop."""
        config = read_config(self.run.config)
        signal.signal(signal.SIGUSR2, self._stop)
        signal.signal(signal.SIGTERM, self._stop)
        job = f"local-{os.getpid()}"
        for restarts in itertools.count():
            nothing, attempt = recovery.begin(self.run, job=job, restarts=restarts, nodes=[socket.gethostname()], limits=config.slurm)
            if nothing:
                return nothing
            code = self._attempt(config, attempt)
            verdict = recovery.end(self.run, recovery.gather(self.run, attempt, code, self.told), config.slurm)
            if verdict.action is not Action.requeue or self.told:
                break
        return verdict

    def _attempt(self, config: RunConfig, attempt: int) -> int:
        """Start all ranks and wait; the first that fails ends the others. Returns the first failure's code."""
        with ExitStack() as files:
            for rank in range(config.slurm.world_size):
                log = files.enter_context(open(self.run.attempt(attempt).log(rank), "ab"))
                command = script.rank_argv(self.run, rank_command=self.rank_command)
                self.ranks.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=_variables(config, attempt, rank)))
            if self.told:
                self._tell()
            code = self._first_failure()
        self._end_all()
        return code

    def _first_failure(self) -> int:
        while True:
            codes = [rank.poll() for rank in self.ranks]
            if failed := next((code for code in codes if code), 0):
                return failed
            if all(code == 0 for code in codes):
                return 0
            time.sleep(0.1)

    def _end_all(self) -> None:
        for rank in self.ranks:
            rank.terminate()
        deadline = time.monotonic() + _GRACE
        for rank in self.ranks:
            try:
                rank.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                rank.kill()
                rank.wait()
        self.ranks.clear()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.told = True
        self._tell()

    def _tell(self) -> None:
        for rank in self.ranks:
            rank.send_signal(signal.SIGUSR2)


def once(run: RunPaths, config: RunConfig, train: Callable[[int], int]) -> int:
    """One attempt in this very process; `train` gets its number. Returns the exit code, of the verdict unless training raises."""
    nothing, attempt = recovery.begin(run, job=f"here-{os.getpid()}", restarts=0, nodes=[socket.gethostname()], limits=config.slurm)
    if nothing:
        return nothing.exit_code
    code = EXIT_OURS
    try:
        code = train(attempt)
    finally:
        verdict = recovery.end(run, recovery.gather(run, attempt, code, False), config.slurm)
    return verdict.exit_code


def _variables(config: RunConfig, attempt: int, rank: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SUBMITIT_"))}
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": config.slurm.world_size, "MASTER_PORT": master_port(str(os.getpid()), attempt)}
    place[ATTEMPT] = attempt
    fixed = {"MASTER_ADDR": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
    return inherited | script.environment(config) | fixed | {name: str(value) for name, value in place.items()}


def _visible_gpus() -> list[int]:
    """submitit would hide every GPU that it was not told of."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [int(part) for part in given.split(",") if part.strip().isdigit()]
    return list(range(len(list(Path("/proc/driver/nvidia/gpus").glob("*")))))


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started here ignore Ctrl-C and the end of the terminal, because ignored signals are inherited."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
