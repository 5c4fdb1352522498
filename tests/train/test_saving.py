"""Saves that do not stop training, and what a resume does with their bytes."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpt.checkpoint import CheckpointStore
from cpt.checkpoint.store import rank_file
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.tracking.journal import read_events, series
from tests.ranks import RankFailed, run_ranks
from tests.tiny import make_run, train_rank

pytestmark = pytest.mark.engine

DROPOUT = ["train.hidden_dropout=0.1", "train.precision=fp32"]
TP2_PP2 = ["slurm.tasks_per_node=4", "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2", "parallel.sequence_parallel=true"]


def events(run: RunPaths, name: str) -> list[dict[str, Any]]:
    return [event.fields for event in read_events(run) if event.name == name]


def damage(store: CheckpointStore, step: int, rank: int = 0) -> None:
    path = store.path(step) / rank_file(rank)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def train_until(world: World, run: RunPaths, attempt: int, step: int) -> int:
    """Stop in good order after `step`."""
    from cpt.train import journaling

    stepped = journaling.Recorder.stepped

    def stop(self: Any, state: Any, *rest: Any) -> None:
        stepped(self, state, *rest)
        if state.step == step and world.rank == 0:
            run.triggers.mkdir(exist_ok=True)
            (run.triggers / "stop").touch()

    journaling.Recorder.stepped = stop  # type: ignore[method-assign]
    return train_rank(world, run, attempt)


def slow_writes(world: World, run: RunPaths, attempt: int) -> int:
    """A disk on which a save lasts longer than several steps."""
    from cpt.checkpoint import writer

    write = writer.write
    writer.write = lambda *arguments: (time.sleep(1.0), write(*arguments))[1]
    return train_rank(world, run, attempt)


def note_syncs(world: World, run: RunPaths, attempt: int) -> list[str]:
    """Folder and name of what this rank made sure of, in order."""
    done, fsync = list[str](), os.fsync

    def note(file: int) -> None:
        fsync(file)
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        done.append(f"{path.parent.name}/{path.name}")

    os.fsync = note
    assert train_rank(world, run, attempt) == 0
    return done


def full_disk(world: World, run: RunPaths, attempt: int) -> int:
    """The last rank finds no room in its second save."""
    from cpt.checkpoint import writer

    write, saves = writer.write, []

    def fail(*arguments: Any) -> None:
        saves.append(0)
        if len(saves) == 2 and world.rank == world.world_size - 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    writer.write = fail
    return train_rank(world, run, attempt)


def full_disk_at_the_end(world: World, run: RunPaths, attempt: int) -> int:
    """Every rank has written its second save, and there is no room for its index."""
    from cpt.checkpoint import store

    conclude = store.conclude

    def fail(folder: Path, step: int, *rest: Any) -> Any:
        if step == 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return conclude(folder, step, *rest)

    store.conclude = fail
    return train_rank(world, run, attempt)


def test_training_goes_on_while_a_save_is_written_and_a_second_one_waits(root: Path) -> None:
    """The slow write of step 5 is overtaken by steps; what it holds is still step 5, bit for bit."""
    runs = [
        make_run(root, f"slow-{name}", ["checkpoint.interval=5", "checkpoint.keep_last=9", f"checkpoint.asynchronous={name}"]) for name in ("true", "false")
    ]
    for run, function in zip(runs, (slow_writes, train_rank), strict=True):
        assert run_ranks(1, function, run, 0) == [0]
    slow, plain = (CheckpointStore(run.checkpoints) for run in runs)
    assert slow.steps() == plain.steps() == [5, 10, 15, 20]
    for step in slow.steps():
        assert slow.record(step).files == plain.record(step).files, "equal hashes: what was staged is what was there"
    rows = [row.fields for row in read_events(runs[0]) if row.name == "checkpoint_saved"]
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    assert all(row["seconds"] >= 1.0 and row["staging"] < row["seconds"] and row["bytes_per_second"] > 0 for row in rows)
    order = [(row.name, row.fields["step"]) for row in read_events(runs[0]) if row.name.startswith("checkpoint_")]
    assert order == [(f"checkpoint_{what}", step) for step in (5, 10, 15, 20) for what in ("staged", "saved")]


def test_what_is_saved_is_on_disk_before_it_is_said(root: Path) -> None:
    """Bytes, then the record, then the name, then the journal: a power loss at any moment leaves the checkpoint or none."""
    run = make_run(root, "synced", ["slurm.tasks_per_node=2", "train.train_tokens=2560", "checkpoint.interval=5"])
    first, other = run_ranks(2, note_syncs, run, 0)
    torn, store = ".step_00000005.tmp", CheckpointStore(run.checkpoints)
    assert store.steps()[0] == 5
    for rank, done in enumerate((first, other)):
        assert done.index(f"{torn}/{rank_file(rank)}") < next(place for place, path in enumerate(done) if path.startswith(f"{torn}/.rank_{rank:05d}.json"))
    record = next(place for place, path in enumerate(first) if path.startswith(f"{torn}/.complete.json"))
    assert first.index(f"{torn}/{rank_file(0)}") < record < first.index(f"checkpoints/{torn}", record) < first.index(f"{run.root.name}/checkpoints", record)
    named = first.index(f"{run.root.name}/checkpoints", record)
    assert all(f"{path.parent.name}/{path.name}" in first[named:] for path in (run.metrics(0), run.events(0)))


@pytest.mark.parametrize("disk", [full_disk, full_disk_at_the_end], ids=["a rank's file", "the index"])
def test_a_write_that_fails_ends_the_run_and_is_never_published(root: Path, disk: Callable[..., int]) -> None:
    run = make_run(root, disk.__name__, ["slurm.tasks_per_node=2"])
    with pytest.raises(RankFailed, match=r"No space left|reset by peer|closed") as caught:
        run_ranks(2, disk, run, 0)
    assert caught.value.kind in ("OSError", "RuntimeError", "DistBackendError")
    assert CheckpointStore(run.checkpoints).steps() == [5]
    assert run_ranks(2, train_rank, run, 1) == [0, 0]
    assert not run.torn_checkpoints()


@pytest.mark.parametrize(("size", "layout"), [(1, []), pytest.param(4, TP2_PP2, marks=pytest.mark.slow)], ids=["one rank", "TP2 x PP2"])
def test_exact_resume_with_dropout_on(root: Path, size: int, layout: list[str]) -> None:
    name = f"dropout-{size}"
    straight, stopped = (make_run(root, f"{name}-{kind}", ["train.train_tokens=5120", *DROPOUT, *layout]) for kind in ("straight", "stopped"))
    assert run_ranks(size, train_rank, straight, 0) == [0] * size
    assert run_ranks(size, train_until, stopped, 0, 4) == [75] * size
    (stopped.triggers / "stop").unlink()
    assert run_ranks(size, train_rank, stopped, 1) == [0] * size
    assert events(stopped, "resume")[0]["generators"] == "restored"
    for curve in ("train/loss", "train/grad_norm", "heldout/loss/domain"):
        assert series(stopped, curve) == series(straight, curve), curve


def test_on_another_layout_generators_are_seeded_anew_and_that_is_said(root: Path) -> None:
    run = make_run(root, "moved", ["train.train_tokens=5120", *DROPOUT])
    assert run_ranks(1, train_until, run, 0, 4) == [75]
    (run.triggers / "stop").unlink()
    run.config.write_text(make_run(root, "moved-to", ["train.train_tokens=5120", *DROPOUT, *TP2_PP2]).config.read_text())
    assert run_ranks(4, train_rank, run, 1) == [0] * 4
    assert "seeded anew from (seed" in events(run, "resume")[0]["generators"]


def test_a_damaged_checkpoint_is_said_and_set_aside_and_the_one_before_is_used(root: Path) -> None:
    run = make_run(root, "damaged", ["slurm.tasks_per_node=2", "train.train_tokens=5120"])
    store = CheckpointStore(run.checkpoints)
    assert run_ranks(2, train_rank, run, 0) == [0, 0]
    straight = series(run, "train/loss")
    damage(store, 10, rank=1)
    assert run_ranks(2, train_rank, run, 1) == [0, 0]
    assert events(run, "checkpoint_damaged") == [{"folder": "step_00000010.damaged", "files": {rank_file(1): "has other bytes than were written"}}]
    assert events(run, "resume")[-1]["step"] == 5
    assert series(run, "train/loss") == straight and store.steps() == [5, 10]
    for step in (5, 10):
        damage(store, step)
    with pytest.raises(RankFailed, match="every checkpoint is damaged") as caught:
        run_ranks(2, train_rank, run, 2)
    assert caught.value.kind == "UserError"
    assert len(list(store.folder.glob("step_*.damaged*"))) == 3, "nothing is deleted"
