"""Files are whole or absent; records refuse what is not theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cpt.checkpoint.records import FileRecord, Receipt
from cpt.core.artifacts import read_json, sha256_json, write_all, write_bytes, write_json
from cpt.core.errors import MissingInput, UserError
from cpt.core.records import MixturePlan, PlanRecord, SourceShare, SweepTable, TrialRow

SHARE = SourceShare(name="a", group="domain", language="en", weight=1, planned_tokens=10, available_tokens=20, epoch_tokens=20, epoch_cap=4, sha256="s")
MIXTURE = MixturePlan(train_tokens=10, shares=[SHARE], data_hash="d")


def test_records_round_trip(tmp_path: Path) -> None:
    row = TrialRow(index=0, fingerprint="f", overrides=["a=1"], settings={"a": 1}, state="done", domain_loss=1.5, general_loss=None)
    table = SweepTable(name="s", rows=[row], base_domain_loss=2, base_general_loss=1, forgetting_limit=0.05, chosen=0, reason="lowest")
    table.save(tmp_path / "deep" / "table.json")
    assert SweepTable.load(tmp_path / "deep" / "table.json") == table
    MIXTURE.save(tmp_path / "mixture.json")
    again = MixturePlan.load(tmp_path / "mixture.json")
    assert again == MIXTURE
    assert isinstance(again.shares[0].weight, float)  # JSON's 1 is a float here


def test_of_several_files_none_appears_before_all_are_written(tmp_path: Path) -> None:
    write_all({tmp_path / "a" / "one": b"1", tmp_path / "b" / "two": b"2"})
    assert [path.read_bytes() for path in (tmp_path / "a" / "one", tmp_path / "b" / "two")] == [b"1", b"2"]
    with pytest.raises(OSError):
        write_all({tmp_path / "a" / "one": b"new", tmp_path / "a" / "one" / "below a file": b"2"})
    assert (tmp_path / "a" / "one").read_bytes() == b"1"


def test_equal_values_are_equal_files(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": Path("z")})
    write_json(tmp_path / "b", {"y": "z", "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sha256_json({"x": 1, "y": 2}) == sha256_json({"y": 2, "x": 1})


@pytest.mark.parametrize("change", [{"extra": 1}, {"data_hash": None, "shares": 3}, {"train_tokens": ...}])
def test_foreign_records_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    value = MIXTURE.as_dict() | change
    write_json(tmp_path / "mixture.json", {key: item for key, item in value.items() if item is not ...})
    with pytest.raises(UserError, match="is not a MixturePlan"):
        MixturePlan.load(tmp_path / "mixture.json")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"nothing\.json: not found"):
        PlanRecord.load(tmp_path / "nothing.json")
    (tmp_path / "half.json").write_text('{"train_tokens": 1')
    with pytest.raises(UserError, match="not JSON"):
        read_json(tmp_path / "half.json")


def test_bytes_are_on_disk_before_their_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power loss may leave the name and nothing in it."""
    fsync, replace, done = os.fsync, os.replace, list[str]()
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{file}')).name}"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(f"rename {new.name}"), replace(old, new)))
    write_bytes(tmp_path / "state", b"new")
    assert done == [f"sync .state.{os.getpid()}.tmp", "rename state", f"sync {tmp_path.name}"]


def test_a_sealed_record_notices_each_digit(tmp_path: Path) -> None:
    """Also where it is still good JSON of the right shape."""
    FileRecord(bytes=12, hash="a").save(tmp_path / "plain.json")
    sealed, path = Receipt(file=FileRecord(bytes=12, hash="a"), optimizer_step=3, tensors={}), tmp_path / "sealed.json"
    sealed.save(path)
    text = path.read_text()
    assert Receipt.load(path) == sealed
    for old, new in (("12", "13"), ('"a"', '"b"'), ('"optimizer_step": 3', '"optimizer_step": 2'), ("seal", "sealed")):
        path.write_text(text.replace(old, new))
        with pytest.raises(UserError, match="is not what was written"):
            Receipt.load(path)


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    """A process that is killed between write and rename: the reader sees the old content, whole."""
    path = tmp_path / "state.json"
    write_bytes(path, b"old")
    script = "import os, signal, sys; from pathlib import Path; from cpt.core import artifacts\n"
    script += "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nartifacts.write_bytes(Path(sys.argv[1]), b'new' * 100000)"
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.stat(path).st_nlink == 1
