"""`cpt train [overrides]` here, `-m [overrides]` as a sweep in one job array, `--run DIR` as one rank of a launched run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpt.config.seal import read_config
from cpt.core.paths import RunPaths
from cpt.core.world import World


def main(overrides: Sequence[str]) -> int:
    """Returns 0 done, 75 resume me, 2 yours, 1 ours."""
    match list(overrides):
        case ["--run", folder]:
            return rank(RunPaths(Path(folder).absolute()))
        case arguments if "-m" in arguments or "--multirun" in arguments:
            return sweep([argument for argument in arguments if argument not in ("-m", "--multirun")])
        case arguments:
            return here(arguments)


def rank(run: RunPaths) -> int:
    """One of the ranks that the batch script, an array task or the local supervisor starts."""
    from slurm.environment import attempt_from_environment, deadline_from_environment, world_from_environment
    from slurm.rank import alive, exit_code

    world, attempt, config = world_from_environment(), attempt_from_environment(run), read_config(run.config)
    with alive(run, attempt, world, config.slurm.heartbeat_seconds) as heart:
        from cpt.train import Life, train_run

        return exit_code(train_run(run, config, world, attempt, Life(heart.at, deadline_from_environment())), world)


def here(overrides: Sequence[str]) -> int:
    """A run of one rank, in this process."""
    from cpt.train import train_run
    from jobs.run_directory import open_single
    from slurm.local import once

    config, run = open_single(overrides)
    return once(run, config, lambda attempt: train_run(run, config, World(), attempt))


def sweep(overrides: Sequence[str]) -> int:
    """Hydra multirun: every trial sealed and submitted as one array. Returns at once, or with `hydra.launcher.detach=false` when all have ended."""
    from jobs.console import open_console
    from jobs.run_directory import Preparer, command
    from jobs.sweep_table import objective, table
    from slurm.hydra_launcher import Task, multirun
    from slurm.sweep_launch import Caller

    say = open_console().print
    task = Task(Caller(prepare=Preparer(), command=command()), objective, say)
    say(table(multirun(overrides, task), task.results))
    return 0
