"""Skip, rollback and stop over real ranks: what is not trained on leaves no trace, and a killed run takes the same decisions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt.checkpoint import CheckpointStore
from cpt.core.attempts import StopRecord
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.tracking.journal import EventRow, read_events, series
from tests.ranks import Ranks, run_ranks
from tests.tiny import TP2_PP2_DP2, make_run, train_rank, weights_of
from tests.train.test_exact_resume import last_step, wait_for

pytestmark = pytest.mark.engine

TP2_PP2 = [*TP2_PP2_DP2[1:], "slurm.tasks_per_node=4"]
LAYOUTS = {"one rank fp32": (1, ["train.precision=fp32"]), "TP2 x PP2 bf16 overlapped": (4, TP2_PP2)}
NAN_AT = 96
"""Number of a sample: the first of update 13."""


def poisoned(world: World, run: RunPaths, attempt: int, bad: Sequence[int], value: float = math.nan) -> int:
    """`train_rank`, but gradients of global batches that hold a sample in `bad` have `value` in one number of the last rank."""
    from cpt.engine import Engine
    from cpt.train.feed import Feed

    read, compute = Feed.next, Engine.compute_gradients
    now: list[range] = []

    def noted(feed: Any, state: Any) -> Any:
        batch = read(feed, state)
        now[:] = [batch.samples]
        return batch

    def spoiled(engine: Any, *given: Any) -> Any:
        if world.rank < world.world_size - 1 or not any(sample in now[0] for sample in bad):
            return compute(engine, *given)
        weight = next(parameter for parameter in engine.chunks[-1].parameters() if parameter.dim() == 2)
        hook = weight.register_hook(lambda gradient: gradient * value)
        result = compute(engine, *given)
        hook.remove()
        return result

    Feed.next, Engine.compute_gradients = noted, spoiled  # type: ignore[method-assign]
    return train_rank(world, run, attempt)


def events(run: RunPaths, name: str) -> list[EventRow]:
    return [event for event in read_events(run) if event.name == name]


def crcs(run: RunPaths) -> list[float]:
    return list(series(run, "data/batch_crc32").values())


def assert_same(run: RunPaths, other: RunPaths) -> None:
    for name in ("train/loss", "train/grad_norm", "train/lr", "data/batch_crc32", "heldout/loss/domain"):
        assert series(run, name) == series(other, name), name
    ours, theirs = run_ranks(1, weights_of, run)[0], run_ranks(1, weights_of, other)[0]
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (size > 1)) for name, (size, _) in LAYOUTS.items()])
def straight(request: pytest.FixtureRequest, root: Path) -> tuple[RunPaths, int, list[str]]:
    """A run of 20 updates that nothing happened to, its world size and overrides."""
    size, overrides = LAYOUTS[request.param]
    run = make_run(root, f"calm-{request.param}", overrides)
    assert run_ranks(size, train_rank, run, 0) == [0] * size
    return run, size, overrides


def test_exact_skip(straight: tuple[RunPaths, int, list[str]], root: Path) -> None:
    """Update 13 is not made: the schedule goes on, its samples are spent, all before is as it was; killed after it, the run decides the same."""
    calm, size, overrides = straight
    run, killed = (make_run(root, f"{calm.root.name}-skip-{name}", overrides) for name in ("a", "b"))
    assert run_ranks(size, poisoned, run, 0, [NAN_AT]) == [0] * size
    (event,) = events(run, "anomaly")
    assert (event.fields["kind"], event.fields["action"], event.fields["step"]) == ("non_finite", "skip", 13)
    assert (event.fields["samples"], event.fields["grad_norm"]) == ([96, 104], "nan")
    assert all(worst["documents"] and worst["source"] and worst["sample"] in range(96, 104) for worst in event.fields["worst"])
    assert list(series(run, "train/loss")) == [step for step in range(1, 21) if step != 13]
    assert crcs(run) == [crc for step, crc in series(calm, "data/batch_crc32").items() if step != 13]
    rates = series(calm, "train/lr")
    assert all(rate == rates[step] for step, rate in series(run, "train/lr").items())
    before = {step: loss for step, loss in series(calm, "train/loss").items() if step <= 12}
    assert before == {step: loss for step, loss in series(run, "train/loss").items() if step <= 12}
    record = CheckpointStore(run.checkpoints).record(20)
    assert (record.train["consumed_samples"], record.train["skipped"], record.optimizer_step) == (152, [[96, 104]], 19)
    assert record.train["losses"] == list(series(run, "train/loss").values()), "what was not made is no measure of what comes"
    ranks = Ranks(size, poisoned, killed, 0, [NAN_AT])
    wait_for(lambda: last_step(killed) >= 14)
    ranks.kill()
    assert run_ranks(size, poisoned, killed, 1, [NAN_AT]) == [0] * size
    assert_same(run, killed)


def test_exact_rollback(straight: tuple[RunPaths, int, list[str]], root: Path) -> None:
    """Back from update 13 to checkpoint 5, without samples 40 to 103: as if they had never been there. Killed after it, the run ends the same."""
    calm, size, overrides = straight
    back = [*overrides, "train.anomaly.non_finite=rollback", "train.anomaly.rollback_checkpoints=2"]
    run, killed = (make_run(root, f"{calm.root.name}-rollback-{name}", back) for name in ("a", "b"))
    assert run_ranks(size, poisoned, run, 0, [NAN_AT]) == [0] * size
    (event,) = events(run, "rollback")
    assert (event.fields["step"], event.fields["skipped"]) == (5, [40, 104])
    assert list(series(run, "train/loss")) == list(range(1, 21))
    losses = series(calm, "train/loss")
    assert {step: loss for step, loss in series(run, "train/loss").items() if step <= 5} == {step: losses[step] for step in range(1, 6)}
    assert crcs(run)[5:12] == crcs(calm)[13:20], "update 6 reads what update 14 would have read"
    store = CheckpointStore(run.checkpoints)
    record = store.record(20)
    assert (record.train["consumed_samples"], record.train["skipped"], record.train["rollbacks"]) == (160, [[40, 104]], 1)
    assert [path.name for path in store.folder.glob("*.rolled_back")] == ["step_00000010.rolled_back"]
    ranks = Ranks(size, poisoned, killed, 0, [NAN_AT])
    wait_for(lambda: bool(events(killed, "rollback")))
    wait_for(lambda: last_step(killed) >= 6)
    ranks.kill()
    assert run_ranks(size, poisoned, killed, 1, [NAN_AT]) == [0] * size
    assert_same(run, killed)


def test_stop_leaves_the_last_checkpoint_and_is_held(straight: tuple[RunPaths, int, list[str]], root: Path) -> None:
    """Whatever was left to try: too many skips in a row, too many rollbacks, no checkpoint to go back to."""
    calm, size, overrides = straight
    run = make_run(root, f"{calm.root.name}-stop", [*overrides, "train.anomaly.max_skips=2"])
    assert run_ranks(size, poisoned, run, 0, range(96, 160), math.inf) == [80] * size
    stop = StopRecord.load(run.stopped)
    assert (stop.reason, stop.step) == ("anomaly", 14)
    assert "train.anomaly.max_skips" in stop.why and stop.why.startswith("update 15: loss ")
    assert [event.fields["action"] for event in events(run, "anomaly")] == ["skip", "skip", "stop"]
    assert CheckpointStore(run.checkpoints).latest() == 10


def test_a_save_of_a_skipped_update_can_be_resumed_from(root: Path) -> None:
    """It says that the samples of that update are spent, or a resume would find that it stands elsewhere in the data."""
    run = make_run(root, "skip-saved", ["train.train_tokens=5120", "checkpoint.interval=5"])
    assert run_ranks(1, poisoned, run, 0, [36]) == [0]
    store = CheckpointStore(run.checkpoints)
    assert store.record(5).data.next_sample == 40
    store.set_aside(10)
    assert run_ranks(1, train_rank, run, 1) == [0]


def test_rollback_without_a_checkpoint_stops(root: Path) -> None:
    run = make_run(root, "no-way-back", ["train.anomaly.non_finite=rollback", "checkpoint.interval=100"])
    assert run_ranks(1, poisoned, run, 0, [NAN_AT]) == [80]
    assert "there are 0 checkpoints to go back to" in StopRecord.load(run.stopped).why
    assert not list(run.checkpoints.glob("step_*"))


def test_a_spike_of_real_losses_is_found(root: Path) -> None:
    """Random tokens in the samples of update 13; nothing else is touched. At a gentle rate: a faster one has spikes of its own."""
    run = make_run(
        root, "spike", ["train.precision=fp32", "optimizer.lr_ratio=1", "train.anomaly.spike=skip", "train.anomaly.window=8", "train.anomaly.sigma=5"]
    )
    assert run_ranks(1, _noise, run, range(96, 104)) == [0]
    found = [(event.fields["kind"], event.fields["action"], event.fields["step"]) for event in events(run, "anomaly")]
    assert found == [("loss_spike", "skip", 13)]


def _noise(world: World, run: RunPaths, samples: range) -> int:
    from cpt.data import MixtureDataset

    batch = MixtureDataset.batch

    def spoiled(self: MixtureDataset, start: int, stop: int) -> Any:
        found = batch(self, start, stop)
        noise = np.random.default_rng(start).integers(0, 256, found.tokens.shape)
        return dataclasses.replace(found, tokens=noise) if start in samples else found

    MixtureDataset.batch = spoiled  # type: ignore[method-assign]
    return train_rank(world, run, 0)
