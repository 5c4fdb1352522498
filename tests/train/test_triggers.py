"""`touch triggers/save` and `triggers/stop`: a colleague who does not own the job can act."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cpt.checkpoint import CheckpointStore
from cpt.config.seal import read_config
from cpt.core.attempts import StopRecord
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.tracking.journal import read_events, series
from tests.ranks import run_ranks
from tests.tiny import make_run, train_rank

pytestmark = pytest.mark.engine


def test_stop_ends_with_a_checkpoint(root: Path) -> None:
    run = make_run(root, "stop", ["checkpoint.interval=100"])
    assert run_ranks(1, _stop_after_three_steps, run) == [75]
    stop = StopRecord.load(run.stopped)
    assert (stop.reason, stop.step) == ("trigger", 3)
    assert CheckpointStore(run.checkpoints).steps() == [3]


def test_a_deadline_ends_with_a_checkpoint(root: Path) -> None:
    """For sites whose SLURM sends no signal before the time limit."""
    run = make_run(root, "deadline", ["checkpoint.interval=100"])
    assert run_ranks(1, _train_with_deadline, run) == [75]
    stop = StopRecord.load(run.stopped)
    assert (stop.reason, stop.step) == ("deadline", 3)
    assert CheckpointStore(run.checkpoints).steps() == [3]


def _train_with_deadline(world: World, run: RunPaths) -> int:
    """A second lasts as long as an update."""
    from cpt.train import Life, stop, train_run

    done = [0]

    def at(_phase: object, step: int) -> None:
        done[0] = step

    stop.time = SimpleNamespace(time=lambda: float(done[0]))  # type: ignore[assignment]
    return train_run(run, read_config(run.config), world, 0, Life(at, deadline=2.0))


def test_save_does_not_stop(root: Path) -> None:
    run = make_run(root, "save", ["checkpoint.interval=100"])
    run.triggers.mkdir()
    (run.triggers / "save").touch()
    assert run_ranks(1, train_rank, run, 0) == [0]
    assert not (run.triggers / "save").exists()
    assert StopRecord.load(run.stopped).step == 20


def _stop_after_three_steps(world: object, run: object) -> int:
    from cpt.train import journaling

    stepped = journaling.Recorder.stepped

    def touch(self: journaling.Recorder, state: object, *rest: object) -> None:
        stepped(self, state, *rest)  # type: ignore[arg-type]
        if state.step == 3:  # type: ignore[attr-defined]
            run.triggers.mkdir()  # type: ignore[attr-defined]
            (run.triggers / "stop").touch()  # type: ignore[attr-defined]

    journaling.Recorder.stepped = touch  # type: ignore[method-assign,assignment]
    return train_rank(world, run, 0)  # type: ignore[arg-type]


def test_stats_are_of_one_update_and_change_nothing(root: Path) -> None:
    calm, run = make_run(root, "unwatched", []), make_run(root, "watched", ["train.stats_interval=8"])
    run.triggers.mkdir()
    (run.triggers / "stats").touch()
    assert run_ranks(1, train_rank, calm, 0) == run_ranks(1, train_rank, run, 0) == [0]
    assert series(run, "train/loss") == series(calm, "train/loss")
    seen = {event.fields["step"]: event.fields for event in read_events(run) if event.name == "layer_stats"}
    assert list(seen) == [1, 8, 16]
    assert seen[8]["grad_norm"] == pytest.approx(series(run, "train/grad_norm")[8], rel=1e-6)
    lines = [json.loads(line) for line in (run.root / seen[8]["file"]).read_text().splitlines()]
    assert [line["part"] for line in lines][:3] == ["embedding", "layer_000.attention", "layer_000.mlp"]
    assert all(0 < line["update_ratio"] < 1 for line in lines if line["weight_norm"])
