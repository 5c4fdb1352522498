"""`cpt resume RUN [--check] [--accept-changed-data]`: show what the next attempt would start from, and submit it unless data or checkpoint changed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cpt.core.errors import EXIT_DONE, Problem, UserError
from cpt.core.paths import RunPaths
from jobs import launch
from jobs.console import open_console
from jobs.resume_check import accept_change, examine, page
from jobs.status_answer import locate
from slurm import standing
from slurm.standing import State


def main(arguments: Sequence[str]) -> int:
    """2 with every reason not to go on; else 0, or what `cpt launch --run` returns."""
    options = parse(arguments)
    run = RunPaths(locate(options.run))
    found = examine(run)
    if options.accept_changed_data and found.changed:
        require_idle(run)
        accept_change(found)
        found = examine(run)
    open_console().print(page(found))
    if found.problems:
        raise UserError(found.problems)
    return EXIT_DONE if options.check else launch.main(["--run", str(run.root)])


def require_idle(run: RunPaths) -> None:
    """Raises `UserError` while an attempt may read what is about to change."""
    if (known := standing.of_run(run)).state in (State.running, State.queued):
        fix = f"touch {run.triggers}/stop, wait until it has saved, then again"
        raise UserError(Problem(where=run.root.name, what=f"is {known.state}", why="its data cannot be exchanged under way", fix=fix))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """A run directory, or its name below runs/."""
    parser = argparse.ArgumentParser(prog="cpt resume", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--check", action="store_true", help="only show; submits nothing")
    parser.add_argument("--accept-changed-data", action="store_true", help="go on with another mixture or corpus than the checkpoint was trained on")
    return parser.parse_args(list(arguments))
