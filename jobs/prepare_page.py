"""What `cpt prepare` shows: a bar with the time that is left where somebody watches, plain lines in a log; and the data card at the end."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from cpt.config.run import RunConfig
from cpt.core.units import duration, size
from cpt.corpus import work

_EVERY = 10.0
"""Seconds between lines of a log."""


class Watcher:
    """Context manager; `show` is called with each unit that is done."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:>9}"), BarColumn(), TextColumn("{task.fields[said]}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._console, self._tasks = console, dict[str, TaskID]()
        self._begun = self._said = time.monotonic()
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        self.seconds = time.monotonic() - self._begun

    def show(self, progress: work.Progress) -> None:
        """A line when a stage ends, and in a log now and then between."""
        said, ended = describe(progress), progress.done == progress.units
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._bar.add_task(progress.stage, total=progress.bytes)
        self._bar.update(self._tasks[progress.stage], completed=progress.done_bytes, said=said, visible=not ended)
        if ended or (not self._console.is_terminal and time.monotonic() - self._said > _EVERY):
            self._bar.console.print(f"{progress.stage}: {said}", soft_wrap=True)
            self._said = time.monotonic()


def describe(progress: work.Progress) -> str:
    """`3 of 8 units, 1.2 MiB/s, 20s left`."""
    parts = [f"{progress.done} of {progress.units} units"]
    made = progress.done_bytes - progress.begun_bytes
    if made and progress.seconds:
        parts.append(f"{size(made / progress.seconds)}/s")
    if progress.done < progress.units and progress.left is not None:
        parts.append(f"{duration(progress.left)} left")
    elif progress.done == progress.units:
        parts.append(duration(progress.seconds))
    return ", ".join(parts)


def write_card(config: RunConfig) -> Path:
    """The data card of a corpus that stands."""
    from cpt.report.card import write_data_card

    return write_data_card(config)
