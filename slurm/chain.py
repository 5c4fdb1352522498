"""Stages of work as a chain of job arrays: each array waits until the one before has ended well. What the tasks do is the caller's."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt.config.run import RunConfig
from cpt.core.artifacts import write_text
from cpt.core.errors import CptError
from slurm import client, script

MOST_TASKS = 1000
"""Of an array: SLURM's own limit, unless a site has raised it, is 1001."""


@dataclass(frozen=True, slots=True)
class Link:
    """One stage: an array of `tasks` tasks, each of which calls `work` with its number. `work` must be found by name on the node."""

    name: str
    tasks: int
    work: Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What every task of an array runs. A failure is a file, so that whoever asks for the chain's state is told, and FAILED in SLURM."""

    link: Link
    folder: Path

    def __call__(self) -> None:
        """Raises what the work raises."""
        number = int(os.environ["SLURM_ARRAY_TASK_ID"])
        try:
            self.link.work(number)
        except Exception as error:
            said = str(error) if isinstance(error, CptError) else f"{type(error).__name__}: {error}"
            write_text(self.folder / f"failed-{number}.txt", f"{said}\n")
            raise


def submit_chain(config: RunConfig, folder: Path, name: str, links: Sequence[Link]) -> dict[str, str]:
    """Link -> job id, at once. Raises `SlurmFailed` with what sbatch says; arrays that were submitted by then are cancelled.

    A task that is lost with its node is queued again by SLURM; one that fails ends the chain, whose other arrays SLURM then cancels.
    """
    from slurm.executor import ArrayExecutor, parameters

    jobs: dict[str, str] = {}
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier chain said is mended, or will be said again
    try:
        for link in links:
            own = folder / link.name
            with client.using(config.cluster):
                executor = ArrayExecutor(own, python=f"exec {shlex.quote(sys.executable)}")
                executor.update_parameters(**parameters(config, f"{name}.{link.name}", _options(config, list(jobs.values())[-1:])))
                jobs[link.name] = executor.submit_tasks(Task(link, own), link.tasks)
    except BaseException:
        for job in jobs.values():
            client.cancel(config.cluster, job)
        raise
    return jobs


def queued(config: RunConfig, name: str, links: Sequence[str]) -> list[client.Job]:
    """Tasks of a chain that wait or run, whoever submitted it."""
    return client.jobs(config.cluster, name=",".join(f"{name}.{link}" for link in links))


def failures(folder: Path) -> dict[str, str]:
    """`link, task 3` -> what it said, of the last submission."""
    files = sorted(folder.glob("*/failed-*.txt"))
    return {f"{file.parent.name}, task {file.stem.partition('-')[2]}": file.read_text().strip() for file in files}


def _options(config: RunConfig, after: Sequence[str]) -> dict[str, str]:
    """One node and one process for each task, of `slurm.cpus_per_task` cores; GPUs are no part of it."""
    slurm = config.slurm
    return {
        "requeue": "",
        "chdir": str(Path.cwd()),
        "nodes": "1",
        "cpus-per-task": str(slurm.cpus_per_task),
        "time": slurm.time,
        **{option: value for option, value in script.placement(config).items() if option in ("partition", "account", "exclude", *script.WHERE)},
        **({"dependency": f"afterok:{after[0]}", "kill-on-invalid-dep": "yes"} if after else {}),
    }
