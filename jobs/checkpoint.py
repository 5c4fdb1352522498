"""`cpt checkpoint list|verify RUN [--step N]`: what can be resumed from, and whether its bytes are what was written."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cpt.checkpoint import CheckpointStore
from cpt.core.errors import MissingInput
from cpt.core.paths import RunPaths
from jobs.checkpoint_page import show, verify
from jobs.console import open_console
from jobs.status_answer import locate
from slurm.attempts import last_fast_step


def main(arguments: Sequence[str]) -> int:
    """0, or 1 when a checkpoint is damaged."""
    parser = argparse.ArgumentParser(prog="cpt checkpoint", description=__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=["list", "verify"])
    parser.add_argument("run", metavar="RUN", help="a run directory, or its name below runs/")
    parser.add_argument("--step", type=int, help="of one checkpoint; without it all of them")
    options = parser.parse_args(list(arguments))
    store = CheckpointStore((run := RunPaths(locate(options.run))).checkpoints)
    if not (steps := store.steps() if options.step is None else [options.step]):
        raise MissingInput(path=run.checkpoints, why="no checkpoint is complete yet", fix=f"cpt status {run.root}")
    if fast := last_fast_step(run):
        open_console().print(f"step {fast} is on the nodes' own disks, too, checked by ranks that resume from it. The full ones:")
    return show(open_console(), store, steps) if options.what == "list" else verify(open_console(), store, steps)
