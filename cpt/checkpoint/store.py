"""The folder of checkpoints: which are complete, which is newest, which go. Knows nothing about tensors."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpt.checkpoint.records import CompleteRecord, FileRecord, Receipt, common_step, merge
from cpt.checkpoint.retention import Keep, removable
from cpt.checkpoint.verify import hash_file
from cpt.core.artifacts import sync_folder, write_json
from cpt.core.errors import CptError, MissingInput

_COMPLETE = "complete.json"
INDEX = "index.json"


def rank_file(rank: int) -> str:
    """One rank's share."""
    return f"rank_{rank:05d}.safetensors"


def receipt_file(rank: int) -> str:
    """What that rank says of it; merged into the index and gone once the checkpoint is published."""
    return f"rank_{rank:05d}.json"


class CheckpointStore:
    """One run's checkpoints. Only rank 0 calls what changes the folder, except `begin`."""

    def __init__(self, folder: Path, keep: Keep | None = None) -> None:
        self.folder, self.keep = folder, keep or Keep()

    def path(self, step: int) -> Path:
        """Where checkpoint `step` is, once it is complete."""
        return self.folder / f"step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending."""
        found = (re.fullmatch(r"step_(\d{8})", path.name) for path in self.folder.glob("step_*"))
        return sorted(int(match.group(1)) for match in found if match)

    def latest(self) -> int | None:
        """Newest complete checkpoint; what the folders say, not what `latest.json` says."""
        return max(self.steps(), default=None)

    def check(self, step: int) -> Path:
        """The checkpoint's folder. Raises `MissingInput` or `CptError` when a file is gone or has another size."""
        path = self.path(step)
        for name, file in self.record(step).files.items():
            if not (path / name).is_file() or (path / name).stat().st_size != file.bytes:
                raise CptError(f"checkpoint {path} is damaged: {name} should hold {file.bytes} bytes")
        return path

    def record(self, step: int) -> CompleteRecord:
        """What checkpoint `step` says of itself. Raises `MissingInput` when there is none."""
        path = self.path(step)
        if not (path / _COMPLETE).is_file():
            raise MissingInput(path=path, why="there is no such checkpoint", fix=f"one of: {self.steps()}")
        return CompleteRecord.load(path / _COMPLETE)

    def tidy(self) -> None:
        """Before anyone writes: what kills have left behind goes, and `latest.json` follows the folders."""
        self.sweep()
        self.announce()

    def sweep(self) -> None:
        """Remove what kills have left behind."""
        for old in self.folder.glob(".step_*.old"):  # a kill came between its going and the coming of what should replace it
            if not (path := self.folder / old.name[1:].removesuffix(".old")).exists():
                os.replace(old, path)
        for kind in ("tmp", "gone", "old"):
            for torn in self.folder.glob(f".step_*.{kind}"):
                shutil.rmtree(torn)

    def begin(self, step: int) -> Path:
        """A folder to write into; every rank may call it, in any order."""
        temp = self.begin_path(step)
        temp.mkdir(parents=True, exist_ok=True)
        return temp

    def publish(self, step: int, layout: str, train: dict[str, Any], ranks: Sequence[int]) -> CompleteRecord:
        """Make what `ranks` have written visible, in one rename, and let old checkpoints go. Raises `CptError` when a tensor is not all there."""
        temp = self.begin_path(step)
        receipts = {rank: Receipt.load(temp / receipt_file(rank)) for rank in ranks}
        for rank in ranks:
            (temp / receipt_file(rank)).unlink()
        record = conclude(temp, step, layout, train, receipts)
        self.reveal(step)
        self.announce()
        self.retain()
        return record

    def reveal(self, step: int) -> None:
        """One rename makes visible what was written. A save of the same step from before a roll-back goes only after it."""
        old = self.folder / f".step_{step:08d}.old"
        if self.path(step).exists():
            os.replace(self.path(step), old)
        os.replace(self.begin_path(step), self.path(step))
        sync_folder(self.folder)
        if old.exists():
            shutil.rmtree(old)

    def retain(self) -> None:
        """Remove what the policy lets go. Damaged checkpoints count for nothing and are left for people to look at."""
        for step in removable([self.record(step) for step in self.steps() if self.intact(step)], self.keep):
            self.remove(step)

    def intact(self, step: int) -> bool:
        """Whether every file is there in its size."""
        try:
            self.check(step)
        except CptError:
            return False
        return True

    def remove(self, step: int) -> None:
        """Out of sight first: a kill in the middle must not leave a half that looks complete."""
        gone = self.folder / f".step_{step:08d}.gone"
        os.replace(self.path(step), gone)
        sync_folder(self.folder)
        shutil.rmtree(gone)

    def set_aside(self, step: int, why: str = "damaged") -> Path:
        """Keep a checkpoint under a name that says why nobody resumes from it; the new path."""
        taken = len(list(self.folder.glob(f"step_{step:08d}.{why}*")))
        path = self.folder / f"step_{step:08d}.{why}{f'.{taken}' if taken else ''}"
        os.replace(self.path(step), path)
        sync_folder(self.folder)
        self.announce()
        return path

    def announce(self) -> None:
        """Write `latest.json` after what the folders say; a kill may have come between a rename and this."""
        if (step := self.latest()) is not None:
            write_json(self.folder / "latest.json", {"step": step})
        else:
            (self.folder / "latest.json").unlink(missing_ok=True)

    def begin_path(self, step: int) -> Path:
        """Where checkpoint `step` is written until it is published."""
        return self.folder / f".step_{step:08d}.tmp"


def conclude(folder: Path, step: int, layout: str, train: dict[str, Any], receipts: Mapping[int, Receipt]) -> CompleteRecord:
    """Write the index and, last, the record of a checkpoint whose ranks gave these receipts. Raises `CptError` when a tensor is not all there."""
    merge(receipts.values()).save(folder / INDEX)
    files = {rank_file(rank): receipt.file for rank, receipt in receipts.items()}
    files[INDEX] = FileRecord(bytes=(folder / INDEX).stat().st_size, hash=hash_file(folder / INDEX))
    record = CompleteRecord(
        step=step,
        layout=layout,
        consumed_samples=train["consumed_samples"],
        files=files,
        optimizer_step=common_step(receipts.values()),
        train=train,
    )
    record.save(folder / _COMPLETE)
    return record
