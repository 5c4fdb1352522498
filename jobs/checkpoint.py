"""`cpt checkpoint list|verify RUN [--step N]`: what can be resumed from, and whether its bytes are what was written."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from cpt.checkpoint import CheckpointStore
from cpt.checkpoint.verify import damage
from cpt.core import units
from cpt.core.errors import EXIT_DONE, EXIT_OURS, MissingInput
from cpt.core.paths import RunPaths
from jobs.console import open_console
from jobs.status_answer import locate


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
    return show(store, steps) if options.what == "list" else verify(store, steps)


def show(store: CheckpointStore, steps: Sequence[int]) -> int:
    """A line per checkpoint; sizes are compared, bytes are not read."""
    table = Table("step", "samples", "domain loss", "size", "files", "written by", box=None)
    for step in steps:
        if not store.intact(step):
            table.add_row(str(step), "damaged: cpt checkpoint verify says which files")
            continue
        record = store.record(step)
        loss = "" if record.domain_loss is None else f"{record.domain_loss:.4f}"
        table.add_row(str(step), f"{record.consumed_samples:,}", loss, units.size(record.bytes), str(len(record.files)), record.layout)
    open_console().print(table)
    return EXIT_DONE if all(map(store.intact, steps)) else EXIT_OURS


def verify(store: CheckpointStore, steps: Sequence[int]) -> int:
    """Read every byte; on a terminal with a bar."""
    console, found = open_console(), EXIT_DONE
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    for step in steps:
        record = store.record(step)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"step {step}", total=record.bytes)
            wrong = damage(store.path(step), record.files, lambda size, task=task, progress=progress: progress.advance(task, size))  # type: ignore[misc]
        for file, why in wrong.items():
            console.print(f"{store.path(step) / file}: {why}")
        console.print(f"step {step}: {f'{len(wrong)} of {len(record.files)} files damaged' if wrong else f'{units.size(record.bytes)} are what was written'}")
        found = EXIT_OURS if wrong else found
    return found
