"""Straight through, or killed at any moment and resumed: the same losses, data and weights, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cpt.checkpoint import CheckpointStore
from cpt.core.attempts import StopRecord
from cpt.core.paths import RunPaths
from cpt.tracking.journal import read_events, series
from tests.ranks import Ranks, run_ranks
from tests.tiny import make_run, train_rank, weights_of

pytestmark = pytest.mark.engine

FORTY_STEPS = "train.train_tokens=20480"
TP2_PP2 = ["slurm.tasks_per_node=4", "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2", "parallel.overlap_grad_reduce=true"]
LAYOUTS = {"one rank fp32": (1, ["train.precision=fp32"]), "TP2 x PP2 bf16": (4, TP2_PP2), "DP2 bf16": (2, ["slurm.tasks_per_node=2"])}
SECOND = pytest.mark.parametrize("straight", [pytest.param(name, marks=[pytest.mark.slow] * (name != "one rank fp32")) for name in LAYOUTS], indirect=True)
"""Four ranks are killed at any moment in one test; in the others with the slow ones."""
CURVES = ("train/loss", "train/grad_norm", "train/lr", "data/batch_crc32", "heldout/loss/domain", "heldout/loss/general")


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the ranks never got there"
        time.sleep(0.002)


def last_step(run: RunPaths) -> int:
    return max(series(run, "train/loss"), default=0)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "DP2 bf16")) for name in LAYOUTS])
def straight(request: pytest.FixtureRequest, root: Path) -> tuple[RunPaths, int, list[str]]:
    """A run that nobody disturbed, its world size and overrides."""
    size, overrides = LAYOUTS[request.param]
    run = make_run(root, f"straight-{request.param}", [FORTY_STEPS, *overrides])
    assert run_ranks(size, train_rank, run, 0) == [0] * size
    return run, size, overrides


def assert_same(run: RunPaths, other: RunPaths) -> None:
    for name in CURVES:
        assert series(run, name) == series(other, name), name
    assert len(series(run, "train/loss")) == 40
    ours, theirs = run_ranks(1, weights_of, run)[0], run_ranks(1, weights_of, other)[0]
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)


def test_exact_resume_after_a_kill_at_any_moment(straight: tuple[RunPaths, int, list[str]], root: Path) -> None:
    reference, size, overrides = straight
    run = make_run(root, f"{reference.root.name}-killed", [FORTY_STEPS, *overrides])
    dice, store = random.Random(size), CheckpointStore(run.checkpoints)
    for attempt in range(2):
        ranks = Ranks(size, train_rank, run, attempt)
        wait_for(lambda attempt=attempt: (store.latest() or 0) >= 10 + 10 * attempt)
        time.sleep(dice.random() * 0.3)
        ranks.kill()
    assert run_ranks(size, train_rank, run, 2) == [0] * size
    resumed = [event.fields["step"] for event in read_events(run) if event.name == "resume"]
    assert len(resumed) == 2
    assert all(step >= 10 for step in resumed)
    assert_same(run, reference)


@SECOND
def test_exact_a_kill_during_a_save_leaves_the_previous_one(straight: tuple[RunPaths, int, list[str]], root: Path) -> None:
    reference, size, overrides = straight
    run = make_run(root, f"{reference.root.name}-torn", [FORTY_STEPS, *overrides])
    store = CheckpointStore(run.checkpoints)
    ranks = Ranks(size, train_rank, run, 0)
    wait_for(lambda: (store.latest() or 0) >= 10 and any(store.folder.glob(".step_*.tmp")))
    ranks.kill()
    torn = [path.name for path in store.folder.glob(".step_*.tmp")]
    before = store.latest()
    assert torn, "the kill came too late to tear the save"
    assert before is not None
    store.check(before)
    assert run_ranks(size, train_rank, run, 1) == [0] * size
    assert next(event.fields["step"] for event in read_events(run) if event.name == "resume") == before
    assert_same(run, reference)


@SECOND
def test_exact_stop_signal_saves_where_it_is_and_the_rest_follows(straight: tuple[RunPaths, int, list[str]], root: Path) -> None:
    reference, size, overrides = straight
    run = make_run(root, f"{reference.root.name}-signal", [FORTY_STEPS, *overrides])
    ranks = Ranks(size, train_rank, run, 0)
    wait_for(lambda: last_step(run) >= 11)
    ranks.signal(signal.SIGUSR2, rank=size - 1)
    assert ranks.join() == [75] * size
    stop = StopRecord.load(run.stopped)
    assert stop.reason == "signal"
    assert CheckpointStore(run.checkpoints).latest() == stop.step
    assert run_ranks(size, train_rank, run, 1) == [0] * size
    assert_same(run, reference)
