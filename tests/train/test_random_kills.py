"""SIGKILL at any moment, again and again, on one layout or from one to another: always resumable, never a wrong state."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cpt.checkpoint import CheckpointStore
from cpt.core.paths import RunPaths
from cpt.tracking.journal import read_events, series
from tests.ranks import Ranks, run_ranks
from tests.tiny import make_run, train_rank

pytestmark = pytest.mark.engine

LAYOUTS = {
    "one": (1, []),
    "DP2": (2, ["slurm.tasks_per_node=2"]),
    "TP2xPP2": (4, ["slurm.tasks_per_node=4", "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2", "parallel.overlap_grad_reduce=true"]),
}
COMMON = ["train.precision=fp32", "train.train_tokens=20480", "checkpoint.interval=3", "evaluate.interval=0", "evaluate.at_start=false"]
"""40 steps, a save every third."""
TOLERANCE = 3e-6
"""Relative, of losses after up to 40 steps on changing layouts, which add in another order at each."""


def new_run(root: Path, name: str, layout: str, asynchronous: bool) -> RunPaths:
    return make_run(root, name, [*COMMON, f"checkpoint.asynchronous={str(asynchronous).lower()}", *LAYOUTS[layout][1]])


def strike(run: RunPaths, size: int, attempt: int, dice: random.Random) -> bool:
    """Start all ranks and kill them: at any moment, or a moment after a save has begun. False when they were done before."""
    ranks = Ranks(size, train_rank, run, attempt)
    during_save, delay, begun = dice.random() < 0.5, dice.random(), time.monotonic()
    saved = CheckpointStore(run.checkpoints).steps()[-1:]
    while all(process.is_alive() for process in ranks.processes):
        if during_save and any(torn for torn in run.torn_checkpoints()) and CheckpointStore(run.checkpoints).steps()[-1:] != saved:
            time.sleep(delay * 0.03)
            break
        if not during_save and time.monotonic() - begun > delay * 4:
            break
        time.sleep(0.001)
    else:
        assert ranks.join() == [0] * size
        return False
    ranks.kill()
    return True


def torment(root: Path, name: str, layouts: list[str], kills: int, asynchronous: bool) -> Iterator[RunPaths]:
    """Runs that were killed `kills` times altogether and came to their end; each attempt takes one of `layouts`."""
    dice, number = random.Random(name), 0
    while kills > 0:
        run, attempt, alive = new_run(root, f"{name}-{number}", layouts[0], asynchronous), 0, True
        number += 1
        while alive:
            chosen = dice.choice(layouts)
            run.config.write_text(new_run(root, f"{name}-{chosen}", chosen, asynchronous).config.read_text())
            if kills > 0:
                alive = strike(run, LAYOUTS[chosen][0], attempt, dice)
                kills -= alive
            else:
                alive = run_ranks(LAYOUTS[chosen][0], train_rank, run, attempt) != [0] * LAYOUTS[chosen][0]
            attempt += 1
        yield run


def assert_undisturbed(run: RunPaths, straight: RunPaths, exact: bool) -> None:
    """The same batches and losses; on one layout also the same bytes in the last checkpoint: weights, moments, generators."""
    assert series(run, "data/batch_crc32") == series(straight, "data/batch_crc32")
    ours, theirs = series(run, "train/loss"), series(straight, "train/loss")
    assert list(ours) == list(theirs) == list(range(1, 41))
    if exact:
        assert ours == theirs
        mine, other = (CheckpointStore(which.checkpoints).record(40) for which in (run, straight))
        assert (mine.files, mine.train, mine.optimizer_step) == (other.files, other.train, other.optimizer_step)
    else:
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=TOLERANCE)


def all_undisturbed(root: Path, layouts: list[str], kills: int, asynchronous: bool) -> None:
    name = f"kills-{'-'.join(layouts)}-{asynchronous}"
    straight, resumed = new_run(root, f"{name}-straight", layouts[0], asynchronous), 0
    assert run_ranks(LAYOUTS[layouts[0]][0], train_rank, straight, 0) == [0] * LAYOUTS[layouts[0]][0]
    for run in torment(root, name, layouts, kills, asynchronous):
        assert_undisturbed(run, straight, exact=len(layouts) == 1)
        resumed += sum(event.name == "resume" for event in read_events(run))
    print(f"{name}: {kills} kills, {resumed} resumes from a checkpoint, the others from the base")


def test_five_random_kills_on_changing_layouts(root: Path) -> None:
    all_undisturbed(root, ["one", "DP2", "TP2xPP2"], kills=5, asynchronous=True)


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [True, False], ids=["asynchronous", "synchronous"])
@pytest.mark.parametrize("layouts", [["one"], ["DP2"], ["TP2xPP2"], ["one", "DP2", "TP2xPP2"]], ids="-".join)
def test_random_kills(root: Path, layouts: list[str], asynchronous: bool) -> None:
    """Eight of these: 56 kills."""
    all_undisturbed(root, layouts, kills=7, asynchronous=asynchronous)
