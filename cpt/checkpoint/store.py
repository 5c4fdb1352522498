"""The folder of checkpoints: which are complete, which is newest, which go. Knows nothing about tensors."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from cpt.core.artifacts import Artifact, sync_folder, write_json
from cpt.core.errors import CptError, MissingInput

_COMPLETE = "complete.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompleteRecord(Artifact):
    """Written last: what a complete checkpoint is, and the files that it holds, with their sizes in bytes."""

    step: int
    layout: str
    consumed_samples: int
    """Sequences trained on; the next sample has this number."""
    data: str
    """`cpt.data.data_fingerprint` of what it was trained on."""
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """All files together."""
        return sum(self.files.values())


class CheckpointStore:
    """One run's checkpoints. Only rank 0 calls what changes the folder, with a barrier on both sides.

    `data` is the fingerprint of what the run trains on now; only who saves needs it.
    """

    def __init__(self, folder: Path, keep_last: int = 2, data: str = "") -> None:
        self.folder, self.keep_last, self.data = folder, keep_last, data

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
        for name, size in self.record(step).files.items():
            if not (path / name).is_file() or (path / name).stat().st_size != size:
                raise CptError(f"checkpoint {path} is damaged: {name} should hold {size} bytes; remove the folder to fall back on the one before")
        return path

    def record(self, step: int) -> CompleteRecord:
        """What checkpoint `step` says of itself. Raises `MissingInput` when there is none."""
        path = self.path(step)
        if not (path / _COMPLETE).is_file():
            raise MissingInput(path=path, why="there is no such checkpoint", fix=f"one of: {self.steps()}")
        return CompleteRecord.load(path / _COMPLETE)

    def begin(self, step: int) -> Path:
        """An empty folder to write into; whatever earlier kills left behind is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for torn in self.folder.glob(".step_*.tmp"):
            shutil.rmtree(torn)
        temp = self.begin_path(step)
        temp.mkdir()
        return temp

    def publish(self, step: int, layout: str, consumed_samples: int) -> CompleteRecord:
        """Make what was written visible, in one rename, and let old checkpoints go."""
        temp, path = self.begin_path(step), self.path(step)
        files = {file.name: _on_disk(file) for file in temp.iterdir()}
        record = CompleteRecord(step=step, layout=layout, consumed_samples=consumed_samples, data=self.data, files=files)
        record.save(temp / _COMPLETE)
        if path.exists():  # a save of the same step, complete but older: only a rerun after a roll-back gets here
            shutil.rmtree(path)
        os.replace(temp, path)
        sync_folder(self.folder)
        self.announce()
        for old in self.steps()[: -self.keep_last]:
            shutil.rmtree(self.path(old))
        return record

    def announce(self) -> None:
        """Write `latest.json` after what the folders say; a kill may have come between a rename and this."""
        if (step := self.latest()) is not None:
            write_json(self.folder / "latest.json", {"step": step})

    def begin_path(self, step: int) -> Path:
        """Where checkpoint `step` is written until it is published."""
        return self.folder / f".step_{step:08d}.tmp"


def _on_disk(file: Path) -> int:
    """Size in bytes, once every byte of it would survive power loss; megatron does not sync its small metadata file."""
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
    return file.stat().st_size
