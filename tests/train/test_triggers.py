"""`touch triggers/save` and `triggers/stop`: a colleague who does not own the job can act."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.checkpoint import CheckpointStore
from cpt.core.attempts import StopRecord
from tests.ranks import run_ranks
from tests.tiny import make_run, train_rank

pytestmark = pytest.mark.engine


def test_stop_ends_with_a_checkpoint(root: Path) -> None:
    run = make_run(root, "stop", ["checkpoint.interval=100"])
    assert run_ranks(1, _stop_after_three_steps, run) == [75]
    stop = StopRecord.load(run.stopped)
    assert (stop.reason, stop.step) == ("trigger", 3)
    assert CheckpointStore(run.checkpoints).steps() == [3]


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
