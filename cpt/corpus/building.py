"""Where a corpus is built: a hidden folder beside its place, moved in by renames, the manifest last.

Without a manifest there is no corpus, with one it is whole: a kill at any moment leaves one or the other.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpt.core.artifacts import sync_folder
from cpt.core.errors import Problem, UserError
from cpt.core.paths import DataPaths
from cpt.core.records import DataManifest


@contextmanager
def building(paths: DataPaths) -> Iterator[DataPaths]:
    """An empty corpus folder to build in, removed at the end. Raises `UserError` while another process builds the same corpus."""
    paths.root.mkdir(parents=True, exist_ok=True)
    new = DataPaths(paths.root / ".new")
    with open(paths.root / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(Problem(where=str(paths.root), what="is being prepared", why="another process holds its lock", fix="wait for it")) from None
        except OSError:
            pass  # a file system without locks has nothing to refuse with
        _remove(new.root)  # what a killed run left
        try:
            yield new
        finally:
            _remove(new.root)


def publish(new: DataPaths, paths: DataPaths, manifest: DataManifest) -> None:
    """Move everything from `new` into place. Readers of the old corpus keep their open files."""
    paths.manifest.unlink(missing_ok=True)
    sync_folder(paths.root)
    for path in sorted(new.root.iterdir()):
        _remove(paths.root / path.name)
        path.rename(paths.root / path.name)
    sync_folder(paths.root)
    manifest.save(paths.manifest)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
