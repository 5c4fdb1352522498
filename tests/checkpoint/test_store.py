"""Complete or invisible, without tensors."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cpt.checkpoint import CheckpointStore, Keep
from cpt.checkpoint.records import FileRecord, Receipt, Stored, common_step, merge
from cpt.checkpoint.store import rank_file, receipt_file
from cpt.checkpoint.verify import damage, hash_file, share
from cpt.core.errors import CptError, MissingInput
from cpt.core.records import DataPosition

SHARD = rank_file(0)
DATA = {"fingerprint": "abc", "next_sample": 80, "tokens": {"listings": 5120}}


def stored(offset: int = 0, size: int = 8, shape: int = 8) -> Stored:
    return Stored(dtype="U8", shape=[shape], files=[SHARD], offsets=[[offset]], sizes=[[size]])


def begin(store: CheckpointStore, step: int, content: bytes = b"weights") -> Path:
    folder = store.begin(step)
    (folder / SHARD).write_bytes(content)
    file = FileRecord(bytes=len(content), hash=hash_file(folder / SHARD))
    Receipt(file=file, optimizer_step=step, tensors={"w": stored()}).save(folder / receipt_file(0))
    return folder


def write(store: CheckpointStore, step: int, content: bytes = b"weights", loss: float | None = None) -> None:
    begin(store, step, content)
    store.publish(step, "TP1 x PP1 x DP1", {"consumed_samples": step * 8, "domain_loss": loss, "data": DATA}, [0])


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", Keep(last=2))


def test_nothing_is_there_at_first(store: CheckpointStore) -> None:
    assert store.latest() is None
    with pytest.raises(MissingInput):
        store.check(10)


def test_a_published_checkpoint_is_the_latest(store: CheckpointStore) -> None:
    write(store, 10)
    assert store.latest() == 10
    assert store.check(10) == store.path(10)
    assert json.loads((store.folder / "latest.json").read_text()) == {"step": 10}


def test_a_checkpoint_says_what_it_is(store: CheckpointStore) -> None:
    write(store, 10)
    record = CheckpointStore(store.folder).record(10)
    assert (record.step, record.consumed_samples, record.data, record.optimizer_step) == (10, 80, DataPosition(**DATA), 10)
    assert sorted(record.files) == sorted(path.name for path in store.path(10).iterdir() if path.name != "complete.json")
    with pytest.raises(MissingInput):
        store.record(20)


def test_what_was_not_published_is_invisible_and_removed_by_the_next_attempt(store: CheckpointStore) -> None:
    write(store, 10)
    torn = begin(store, 20)
    assert store.latest() == 10 and torn.exists()
    store.tidy()
    assert not torn.exists()
    assert store.steps() == [10]


def test_a_removal_that_a_kill_cut_short_leaves_nothing_that_looks_complete(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, 10)
    monkeypatch.setattr("cpt.checkpoint.store.shutil.rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.remove(10)
    monkeypatch.undo()
    assert store.steps() == [] and any(store.folder.iterdir())
    store.tidy()
    assert list(store.folder.glob("*step*")) == []


def test_half_a_checkpoint_is_never_published(store: CheckpointStore) -> None:
    """Every tensor must be covered exactly: a rank that thinks that another has written a part is found before the rename."""
    folder = begin(store, 10)
    for tensor in (stored(size=7), stored(shape=9)):
        Receipt(file=FileRecord(bytes=7, hash=""), optimizer_step=1, tensors={"w": tensor}).save(folder / receipt_file(0))
        with pytest.raises(CptError, match=r"ranks hold [78] of the [89] values of w"):
            store.publish(10, "", {"consumed_samples": 1}, [0])
    assert store.steps() == []


def test_ranks_that_disagree_are_no_checkpoint() -> None:
    receipts = [Receipt(file=FileRecord(bytes=1, hash=""), optimizer_step=step, tensors={"w": stored(shape=shape)}) for step, shape in ((3, 8), (4, 9))]
    with pytest.raises(CptError, match=r"\[3, 4\] optimizer updates"):
        common_step(receipts)
    with pytest.raises(CptError, match="ranks disagree on w"):
        merge(receipts)


def test_the_oldest_go_after_the_newest_is_complete(store: CheckpointStore) -> None:
    for step in (10, 20, 30):
        write(store, step)
    assert store.steps() == [20, 30]


def test_every_k_and_the_best_stay(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, Keep(last=1, every=40, best=2))
    for step, loss in ((10, 3.0), (20, 2.0), (30, 2.5), (40, None), (50, 2.7), (60, 2.6)):
        write(store, step, loss=loss)
    assert store.steps() == [20, 30, 40, 60]


def test_the_only_good_one_never_goes(tmp_path: Path) -> None:
    """Damaged checkpoints count for nothing: two newer ones do not push out the last that can be resumed from."""
    store = CheckpointStore(tmp_path, Keep(last=1))
    write(store, 10)
    for step in (20, 30):
        write(CheckpointStore(tmp_path, Keep(last=9)), step)
        (store.path(step) / SHARD).write_bytes(b"w")
    store.retain()
    assert store.steps() == [10, 20, 30]


def test_a_policy_that_keeps_none_keeps_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, Keep(last=0))
    write(store, 10)
    write(store, 20)
    assert store.steps() == [20]


@pytest.mark.parametrize("harm", [lambda shard: shard.unlink(), lambda shard: shard.write_bytes(b"w")])
def test_a_damaged_checkpoint_is_refused_by_file(store: CheckpointStore, harm: object) -> None:
    write(store, 10)
    harm(store.path(10) / SHARD)  # type: ignore[operator]
    with pytest.raises(CptError, match=f"{SHARD} should hold 7 bytes"):
        store.check(10)


def test_one_bit_is_found_where_the_size_is_right(store: CheckpointStore) -> None:
    write(store, 10)
    files = store.record(10).files
    assert damage(store.path(10), files) == {}
    (store.path(10) / SHARD).write_bytes(b"weightr")
    store.check(10)  # sizes say nothing
    said: list[int] = []
    assert damage(store.path(10), files, said.append) == {SHARD: "has other bytes than were written"}
    assert sum(said) == store.record(10).bytes
    (store.path(10) / SHARD).unlink()
    assert damage(store.path(10), files) == {SHARD: "is not there"}


def test_a_digit_that_turned_in_what_a_checkpoint_says_is_found(store: CheckpointStore) -> None:
    write(store, 10)
    path = store.path(10) / "complete.json"
    path.write_text(path.read_text().replace('"optimizer_step": 10', '"optimizer_step": 11'))
    with pytest.raises(CptError, match=r"complete\.json: is not what was written"):
        store.record(10)
    assert not store.intact(10)


def test_what_is_set_aside_is_kept_and_never_resumed_from(store: CheckpointStore) -> None:
    write(store, 10)
    for _ in range(2):
        write(store, 20)
        assert store.set_aside(20).is_dir()
    assert store.steps() == [10] and len(list(store.folder.glob("step_00000020.damaged*"))) == 2
    assert json.loads((store.folder / "latest.json").read_text()) == {"step": 10}
    store.set_aside(10)
    assert not (store.folder / "latest.json").exists()


def test_ranks_share_the_reading(store: CheckpointStore) -> None:
    names = [f"f{number}" for number in range(7)]
    assert sorted(name for rank in range(3) for name in share(names, rank, 3)) == names


def test_latest_json_follows_the_folders(store: CheckpointStore) -> None:
    write(store, 10)
    (store.folder / "latest.json").unlink()  # a kill between the rename and the pointer
    store.tidy()
    assert json.loads((store.folder / "latest.json").read_text()) == {"step": 10}


def test_the_same_step_can_be_saved_again(store: CheckpointStore) -> None:
    write(store, 10)
    write(store, 10, b"other weights")
    assert (store.check(10) / SHARD).read_bytes() == b"other weights"


def test_a_new_name_is_on_disk_before_the_old_checkpoint_goes(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, 5)
    begin(store, 5)
    fsync, rename, remove, done = os.fsync, os.replace, shutil.rmtree, list[str]()
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(f"{old.name} -> {new.name}"), rename(old, new)))
    monkeypatch.setattr(shutil, "rmtree", lambda folder: (done.append(f"remove {folder.name}"), remove(folder)))
    store.reveal(5)
    assert done == ["step_00000005 -> .step_00000005.old", ".step_00000005.tmp -> step_00000005", "sync", "remove .step_00000005.old"]


@pytest.mark.parametrize("calls", [1, 2], ids=["the old one is out of sight", "the new one is there"])
def test_a_kill_while_a_step_is_saved_again_leaves_one_of_the_two(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    write(store, 5)
    rename, made = os.replace, 0

    def cut_short(source: Path, target: Path) -> None:
        nonlocal made
        if "step_" in Path(target).name and not Path(target).name.endswith(".json"):
            made += 1
            if made > calls:
                raise KeyboardInterrupt
        rename(source, target)

    def killed(folder: Path) -> None:
        (folder / SHARD).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", cut_short)
        patched.setattr(shutil, "rmtree", killed)
        write(store, 5)
    store.tidy()
    assert store.steps() == [5]
    store.check(5)
    assert not list(store.folder.glob(".step_*"))
