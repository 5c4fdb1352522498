"""A planned corpus as work for the tasks of arrays: which units each does, on whichever node it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cpt.corpus.pipeline import Pipeline, Stage
from cpt.corpus.work import run_units


@dataclass(frozen=True, slots=True)
class Batch:
    """Called with the number of a task. Does what is missing of the task's units, so that it can be called again at any time."""

    folder: Path
    """Of the plan."""
    stage: str
    units: Sequence[Sequence[int]]
    """Of each task."""
    workers: int

    def __call__(self, task: int) -> None:
        """Raises `UserError` for what the user can mend."""
        run_units(self.folder, self.stage, self.units[task], self.workers)


def batches(pipeline: Pipeline, workers: int, most: int) -> list[Batch]:
    """Of every stage that has work left, `workers` units or more for each of at most `most` tasks. Stages that follow one with work are done whole."""
    found, again = list[Batch](), False
    for stage in pipeline.stages:
        missing = list(range(len(stage.records))) if again else stage.missing()
        again |= bool(missing)
        if missing:
            found.append(Batch(pipeline.folder, stage.name, _shared_out(stage, missing, min(most, -(-len(missing) // workers))), workers))
    return found


def _shared_out(stage: Stage, units: Sequence[int], tasks: int) -> list[list[int]]:
    """Large and small ones to each."""
    ordered = sorted(units, key=lambda unit: -stage.sizes[unit])
    return [ordered[task::tasks] for task in range(tasks)]
