"""Checkpoints for a terminal: a line each, or what is wrong with their bytes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from cpt.checkpoint import CheckpointStore
from cpt.checkpoint.verify import damage
from cpt.core import units
from cpt.core.errors import EXIT_DONE, EXIT_OURS, CptError, MissingInput


def show(console: Console, store: CheckpointStore, steps: Sequence[int]) -> int:
    """A line per checkpoint; sizes are compared, bytes are not read. 0, or 1 when a checkpoint is damaged."""
    table, found = Table("step", "samples", "domain loss", "size", "files", "written by", box=None), EXIT_DONE
    for step in steps:
        if not store.intact(step):
            table.add_row(str(step), "damaged: cpt checkpoint verify says which files")
            found = EXIT_OURS
            continue
        record = store.record(step)
        loss = "" if record.domain_loss is None else f"{record.domain_loss:.4f}"
        table.add_row(str(step), f"{record.consumed_samples:,}", loss, units.size(record.bytes), str(len(record.files)), record.layout)
    console.print(table)
    return found


def verify(console: Console, store: CheckpointStore, steps: Sequence[int]) -> int:
    """Read every byte; on a terminal with a bar. 0, or 1 when a checkpoint is damaged."""
    found = EXIT_DONE
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    for step in steps:
        try:
            record, path = store.record(step), store.path(step)
        except MissingInput:
            raise
        except CptError as error:
            console.print(f"step {step}: {error}")
            found = EXIT_OURS
            continue
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"step {step}", total=record.bytes)
            wrong = damage(path, record.files, lambda size, task=task, progress=progress: progress.advance(task, size))  # type: ignore[misc]
        for file, why in wrong.items():
            console.print(f"{path / file}: {why}")
        bad = f"{len(wrong)} of {len(record.files)} files damaged; a resume sets it aside and takes the newest that is whole"
        console.print(f"step {step}: {bad if wrong else f'{units.size(record.bytes)} are what was written'}")
        found = EXIT_OURS if wrong else found
    return found
