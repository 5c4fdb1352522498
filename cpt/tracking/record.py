"""`tracking.json`: which MLflow run a directory is, and how far the copy has come."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

from cpt.core.artifacts import Artifact


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingRecord(Artifact):
    """Written after each success, so a sync that dies repeats at most one batch (and MLflow drops identical points)."""

    uid: str
    """Ours, a tag of the MLflow run: finds it again when we died between creating it and writing its id."""
    run_id: str = ""
    offsets: dict[str, int] = field(default_factory=dict)
    """Journal file name -> bytes copied."""
    described: bool = False
    """Parameters and config are there."""
    status: str = ""
    """Last status sent: RUNNING, FINISHED or FAILED."""
    rows: int = 0
    """Journal rows copied so far."""


def load_record(path: Path) -> TrackingRecord:
    """The record, or a new one with its own uid, written before any run is created."""
    if path.exists():
        return TrackingRecord.load(path)
    record = TrackingRecord(uid=uuid.uuid4().hex)
    record.save(path)
    return record


def advance(record: TrackingRecord, path: Path, file: str, offset: int, rows: int) -> TrackingRecord:
    """The record after `rows` more rows of `file`, saved."""
    moved = replace(record, offsets={**record.offsets, file: offset}, rows=record.rows + rows)
    moved.save(path)
    return moved
