"""`cpt checkpoint`: what is there, and whether it is what was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.checkpoint import CheckpointStore, Keep
from cpt.core.artifacts import write_json
from cpt.core.paths import RunPaths
from jobs import cli
from tests.checkpoint.test_store import SHARD, write


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    (tmp_path / "config.yaml").touch()
    store = CheckpointStore(RunPaths(tmp_path).checkpoints, Keep(last=5))
    write(store, 10, loss=2.5)
    write(store, 20)
    return store


def test_list_shows_what_can_be_resumed_from(store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["checkpoint", "list", str(store.folder.parent)]) == 0
    said = capsys.readouterr().out
    assert "2.5000" in said and "TP1 x PP1 x DP1" in said and "160" in said
    write_json(RunPaths(store.folder.parent).fast, {"step": 24})
    assert cli.main(["checkpoint", "list", str(store.folder.parent)]) == 0
    assert "step 24 is on the nodes' own disks, too" in capsys.readouterr().out
    (store.path(20) / SHARD).unlink()
    assert cli.main(["checkpoint", "list", str(store.folder.parent)]) == 1
    assert "damaged" in capsys.readouterr().out


def test_verify_reads_every_byte(store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(store.folder.parent)
    assert cli.main(["checkpoint", "verify", run]) == 0
    (store.path(20) / SHARD).write_bytes(b"weightr")
    assert cli.main(["checkpoint", "list", run]) == 0, "the size is right"
    capsys.readouterr()
    assert cli.main(["checkpoint", "verify", run]) == 1
    said = capsys.readouterr().out
    assert f"{SHARD}: has other bytes than were written" in said and "step 20: 1 of 2 files damaged" in said
    assert cli.main(["checkpoint", "verify", run, "--step", "10"]) == 0


def test_a_record_whose_digit_has_turned(store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    path = store.path(20) / "complete.json"
    path.write_text(path.read_text().replace('"optimizer_step": 20', '"optimizer_step": 21'))
    assert cli.main(["checkpoint", "verify", str(store.folder.parent)]) == 1
    said = capsys.readouterr().out
    assert "complete.json: is not what was written" in said and "step 10" in said


def test_what_is_not_there_is_said(store: CheckpointStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["checkpoint", "verify", str(store.folder.parent), "--step", "30"]) == 2
    assert "one of: [10, 20]" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").touch()
    assert cli.main(["checkpoint", "list", str(empty)]) == 2
