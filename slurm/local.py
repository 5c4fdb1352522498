"""The same run without SLURM: detached supervisors on this machine, through submitit's local executor."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.attempts import Action
from cpt.core.errors import EXIT_OURS, CptError
from cpt.core.paths import RunPaths
from slurm import attempts
from slurm.here import Here
from slurm.recovery import Verdict
from slurm.supervisor import supervise

_NO_LIMIT = 60 * 24 * 365.0
"""Minutes. A year: nobody else waits for this machine."""


@dataclass(frozen=True)
class Supervised:
    """What the detached process runs: these runs, one after the other. Raises `CptError` when one of them fails."""

    runs: Sequence[Path]
    rank_command: Sequence[str] = ()

    def __call__(self) -> list[str]:
        """How each run ended. A failed one does not keep the next from its turn, a stop does."""
        verdicts: list[Verdict] = []
        for run in map(RunPaths, self.runs):
            config = read_config(run.config)
            verdicts.append(supervise(run, config, Here(config, self.rank_command)))
            if verdicts[-1].action is Action.requeue:
                break
        if failed := [verdict.message for verdict in verdicts if verdict.action not in (Action.done, Action.requeue)]:
            raise CptError("; ".join(failed))
        return [verdict.message for verdict in verdicts]


def start(folder: Path, supervised: Sequence[Supervised]) -> list[int]:
    """Start each as a job of submitit's local executor; returns their pids at once. They outlive this terminal."""
    import submitit

    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(timeout_min=_NO_LIMIT, visible_gpus=_visible_gpus(), gpus_per_node=len(_visible_gpus()), stderr_to_stdout=True)
    with _deaf():
        return [int(executor.submit(each).job_id) for each in supervised]


def once(run: RunPaths, config: RunConfig, train: Callable[[int], int]) -> int:
    """One attempt in this very process; `train` gets its number. Returns the exit code, of the verdict unless training raises."""
    if nothing := attempts.finished(run):
        return nothing.exit_code
    attempt = attempts.begin(run, attempts.Start(job=f"here-{os.getpid()}", restarts=0, nodes=[socket.gethostname()], host=socket.gethostname()))
    code = EXIT_OURS
    try:
        code = train(attempt)
    finally:
        verdict = attempts.end(run, attempts.gather(run, attempt, code), config.slurm)
    return verdict.exit_code


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
