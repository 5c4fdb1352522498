"""SIGKILL at any moment, again and again, on one layout or from one to another, with nodes' disks lost: always resumable, never a wrong state."""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cpt.checkpoint import CheckpointStore
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.tracking.journal import read_events, series
from slurm.attempts import last_step
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


def new_run(root: Path, name: str, layout: str, mode: str) -> RunPaths:
    fast = ["checkpoint.interval=9", "checkpoint.fast_interval=2", f"checkpoint.fast_folder={disks(root)}"] if mode == "fast" else []
    return make_run(root, name, [*COMMON, f"checkpoint.asynchronous={str(mode != 'synchronous').lower()}", *fast, *LAYOUTS[layout][1]])


def disks(root: Path) -> Path:
    """Of all nodes."""
    return root / "disks"


def train_on_two_nodes(world: World, run: RunPaths, attempt: int) -> int:
    return train_rank(dataclasses.replace(world, node_name=f"node{2 * world.rank // world.world_size}"), run, attempt)


def saving(run: RunPaths) -> bool:
    """Whether something lies there half written."""
    return bool(run.torn_checkpoints()) or any(disks(run.root.parent).glob(f"{run.root.name}-*/*/.step_*.tmp"))


def strike(run: RunPaths, size: int, attempt: int, dice: random.Random) -> bool:
    """Start all ranks and kill them: at any moment, or a moment after a save has begun. False when they were done before."""
    ranks = Ranks(size, train_on_two_nodes, run, attempt)
    during_save, delay, begun = dice.random() < 0.5, dice.random(), time.monotonic()
    saved = last_step(run)
    while all(process.is_alive() for process in ranks.processes):
        if during_save and saving(run) and last_step(run) != saved:
            time.sleep(delay * 0.03)
            break
        if not during_save and time.monotonic() - begun > delay * 4:
            break
        time.sleep(0.001)
    else:
        assert ranks.join() == [0] * size
        return False
    ranks.kill()
    if (nodes := sorted(disks(run.root.parent).glob(f"{run.root.name}-*/*"))) and dice.random() < 0.5:
        shutil.rmtree(dice.choice(nodes))  # another takes its place, with an empty disk
    return True


def torment(root: Path, name: str, layouts: list[str], kills: int, mode: str) -> Iterator[RunPaths]:
    """Runs that were killed `kills` times altogether and came to their end; each attempt takes one of `layouts`."""
    dice, number = random.Random(name), 0
    while kills > 0:
        run, attempt, alive = new_run(root, f"{name}-{number}", layouts[0], mode), 0, True
        number += 1
        while alive:
            chosen = dice.choice(layouts)
            run.config.write_text(new_run(root, f"{name}-{chosen}", chosen, mode).config.read_text())
            if kills > 0:
                alive = strike(run, LAYOUTS[chosen][0], attempt, dice)
                kills -= alive
            else:
                alive = run_ranks(LAYOUTS[chosen][0], train_on_two_nodes, run, attempt) != [0] * LAYOUTS[chosen][0]
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


def all_undisturbed(root: Path, layouts: list[str], kills: int, mode: str) -> None:
    name = f"kills-{'-'.join(layouts)}-{mode}"
    straight, tiers = new_run(root, f"{name}-straight", layouts[0], mode), Counter[str]()
    assert run_ranks(LAYOUTS[layouts[0]][0], train_on_two_nodes, straight, 0) == [0] * LAYOUTS[layouts[0]][0]
    for run in torment(root, name, layouts, kills, mode):
        assert_undisturbed(run, straight, exact=len(layouts) == 1)
        tiers.update(event.fields["tier"] for event in read_events(run) if event.name == "resume")
        assert not any(disks(root).glob(f"{run.root.name}-*/*")), "nothing is left on the nodes"
    print(f"{name}: {kills} kills, resumed {tiers['full']} times from a full and {tiers['fast']} times from a fast checkpoint, else from the base")


@pytest.mark.slow
def test_five_random_kills_on_changing_layouts(root: Path) -> None:
    all_undisturbed(root, ["one", "DP2", "TP2xPP2"], kills=5, mode="asynchronous")


def test_three_random_kills_with_disks_lost(root: Path) -> None:
    all_undisturbed(root, ["DP2"], kills=3, mode="fast")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["asynchronous", "synchronous", "fast"])
@pytest.mark.parametrize("layouts", [["one"], ["DP2"], ["TP2xPP2"], ["one", "DP2", "TP2xPP2"]], ids="-".join)
def test_random_kills(root: Path, layouts: list[str], mode: str) -> None:
    """Twelve of these: 84 kills."""
    all_undisturbed(root, layouts, kills=7, mode=mode)
