"""The fast tier's folders: frequent checkpoints on the nodes' own disks, each file twice, on its node and on the next.

::

    <checkpoint.fast_folder>/<run>/<node>/step_00000120/
        rank_00008.safetensors, .json    own ranks: the file of the full tier, and its receipt; written by the same writer
        rank_00000.safetensors, .json    the node before this one in the ring of nodes: copies, sent from its memory while it writes
        part.json                        what these files are a part of; equal on all nodes

1. Every rank writes, then sends to the same local rank of the next node and takes from that of the node before. A failing disk drops the save.
2. The all-reduce of each step tells when all ranks hold own and neighbor's files; then each node shows its part, by one rename.
3. The last two stay: the next begins only after this one is shown on all nodes, so the one before is whole until then.
4. At a start nodes say what they hold, intact by checksum. The newest step is taken of which each rank's file is somewhere, that is newer than
   the newest full one, that the journal does not call superseded, and after which nothing was amended. Else it is the full tier.
5. Files that a node's ranks read (any layout: the merged receipts say where which rectangle is) and lacks are sent to it, and so are those of the
   node before it, so that the next loss finds two copies again.

NVIDIA's resiliency extension replicates a rank's shard in cliques of ranks `replication_jump` apart, which must divide the world, and loads into the
same world only; Gemini (SOSP 23) keeps the copies in host memory and fits their traffic into gaps of the training's. Here they are files of the full
tier's format, so that a killed process loses nothing, another layout can read them, and a spare takes any node's place.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt.checkpoint.records import Receipt
from cpt.checkpoint.store import CheckpointStore, conclude, rank_file, receipt_file
from cpt.core.artifacts import Sealed
from cpt.core.errors import CptError, Problem, UserError
from cpt.core.paths import RunPaths

_PART = "part.json"

_KEPT = 2

_NETWORK = re.compile(r"nfs|lustre|gpfs|mmfs|beegfs|ceph|cifs|smb|9p|afs|gluster|wekafs|panfs|pvfs|orangefs|daos|fuse\.(?!overlayfs)")
"""Types of file systems that other nodes see too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part(Sealed):
    """What one node's files are a part of; equal on all nodes."""

    step: int
    layout: str
    world_size: int
    attempt: int
    amendments: int
    """Of the run, when it was saved."""
    train: dict[str, Any]
    """Training's own numbers."""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for parts of one save, and for no other."""
        return self.step, self.attempt, self.train["rollbacks"], self.layout, self.world_size


class FastFolder(CheckpointStore):
    """One run's fast checkpoints on one node. One rank of the node, its leader, calls what changes the folder, except `begin`."""

    def parts(self) -> dict[int, Part]:
        """Step -> what is there of it. A part that cannot be read counts as none."""
        found: dict[int, Part] = {}
        for step in self.steps():
            with suppress(CptError):
                found[step] = Part.load(self.path(step) / _PART)
        return found

    def receipts(self, step: int) -> dict[int, Receipt]:
        """Rank -> what its file should be, of files of this step. One that cannot be read counts as none."""
        found: dict[int, Receipt] = {}
        for path in self.path(step).glob("rank_*.json"):
            with suppress(CptError):
                found[int(path.stem.removeprefix("rank_"))] = Receipt.load(path)
        return found

    def show(self, part: Part) -> int:
        """Make visible what this node's ranks hold of `part`; older ones but one go. Returns bytes."""
        temp = self.begin_path(part.step)
        part.save(temp / _PART)
        self.reveal(part.step)
        self.forget(set(self.steps()[-_KEPT:]))
        return sum(path.stat().st_size for path in self.path(part.step).glob("rank_*.safetensors"))

    def forget(self, kept: set[int]) -> None:
        """Remove all steps but those."""
        for step in self.steps():
            if step not in kept:
                self.remove(step)

    def abandon(self, step: int) -> None:
        """A save that failed."""
        shutil.rmtree(self.begin_path(step), ignore_errors=True)

    def complete(self, part: Part, receipts: Mapping[int, Receipt]) -> None:
        """Write what makes this a checkpoint like those of the full tier; it may lack files that nobody here reads."""
        folder = self.path(part.step)
        for rank, receipt in receipts.items():
            if (folder / rank_file(rank)).is_file():
                receipt.save(folder / receipt_file(rank))
        conclude(folder, part.step, part.layout, part.train, receipts)
        part.save(folder / _PART)

    def close(self) -> None:
        """The run needs no fast checkpoint any more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # another node's is beside it where nodes are on one machine
            self.folder.parent.rmdir()


def node_folder(place: str, run: RunPaths, node: str) -> Path:
    """Where `node` keeps this run's; another run's is another folder, also where names are equal. Raises `UserError` for a place that other nodes see."""
    root = Path(os.path.expandvars(place))
    if not root.is_absolute():
        what, why = f"is {place!r}", f"that is {root} on {node}, and no absolute path"
        raise UserError(Problem(where="checkpoint.fast_folder", what=what, why=why, fix="name a folder on each node's own disk, or checkpoint.fast_folder=''"))
    if kind := network_type(root):
        why = f"on {node} that is a {kind} file system: other nodes see it, and the full tier is there for that"
        raise UserError(Problem(where="checkpoint.fast_folder", what=f"is {root}", why=why, fix="name a folder on each node's own disk"))
    whole = str(run.root.absolute())
    return root / f"{run.root.name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}" / node


def network_type(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that `path` would be on, when it is one of a network; else empty."""
    rows = [line.split() for line in mounts.read_text().splitlines()] if mounts.is_file() else []
    above = [(len(place), kind) for _, place, kind, *_ in rows if path.is_relative_to(place.replace("\\040", " "))]
    kind = max(reversed(above), key=lambda found: found[0], default=(0, ""))[1]  # of two on one place the later hides the other
    return kind if _NETWORK.match(kind) else ""
