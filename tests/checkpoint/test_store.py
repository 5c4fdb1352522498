"""Complete or invisible, without tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cpt.checkpoint import CheckpointStore
from cpt.core.errors import CptError, MissingInput


def write(store: CheckpointStore, step: int, content: bytes = b"weights") -> None:
    (store.begin(step) / "shard").write_bytes(content)
    store.publish(step, "TP1 x PP1 x DP1", step * 8)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep_last=2, data="abc")


def test_nothing_is_there_at_first(store: CheckpointStore) -> None:
    assert store.latest() is None
    with pytest.raises(MissingInput):
        store.check(10)


def test_a_published_checkpoint_is_the_latest(store: CheckpointStore) -> None:
    write(store, 10)
    assert store.latest() == 10
    assert store.check(10) == store.path(10)
    assert json.loads((store.folder / "latest.json").read_text()) == {"step": 10}


def test_a_checkpoint_says_what_it_was_trained_on(store: CheckpointStore) -> None:
    write(store, 10)
    record = CheckpointStore(store.folder).record(10)
    assert (record.step, record.consumed_samples, record.data) == (10, 80, "abc")
    with pytest.raises(MissingInput):
        store.record(20)


def test_what_was_not_published_is_invisible_and_removed_by_the_next_save(store: CheckpointStore) -> None:
    write(store, 10)
    (store.begin(20) / "shard").write_bytes(b"half")
    assert store.latest() == 10
    torn = store.begin_path(20)
    assert torn.exists()
    write(store, 30)
    assert not torn.exists()
    assert store.steps() == [10, 30]


def test_the_oldest_go_after_the_newest_is_complete(store: CheckpointStore) -> None:
    for step in (10, 20, 30):
        write(store, step)
    assert store.steps() == [20, 30]


@pytest.mark.parametrize("damage", [lambda shard: shard.unlink(), lambda shard: shard.write_bytes(b"w")])
def test_a_damaged_checkpoint_is_refused_by_file(store: CheckpointStore, damage: object) -> None:
    write(store, 10)
    damage(store.path(10) / "shard")  # type: ignore[operator]
    with pytest.raises(CptError, match="shard should hold 7 bytes"):
        store.check(10)


def test_latest_json_follows_the_folders(store: CheckpointStore) -> None:
    write(store, 10)
    (store.folder / "latest.json").unlink()  # a kill between the rename and the pointer
    store.announce()
    assert json.loads((store.folder / "latest.json").read_text()) == {"step": 10}


def test_the_same_step_can_be_saved_again(store: CheckpointStore) -> None:
    write(store, 10)
    write(store, 10, b"other weights")
    assert (store.check(10) / "shard").read_bytes() == b"other weights"
