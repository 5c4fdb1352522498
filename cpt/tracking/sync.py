"""Copies journals to MLflow with their original timestamps. One writer; a dead server costs a warning and nothing else.

A run directory is one MLflow run through all its attempts; a sweep is a parent run with a child per trial.
"""

from __future__ import annotations

import fcntl
import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.artifacts import read_json
from cpt.core.attempts import StopRecord
from cpt.core.errors import CptError, MissingInput, UserError
from cpt.core.paths import RunPaths, SweepPaths
from cpt.core.records import SweepTable
from cpt.tracking.journal import journal_files, metric_row, parse_line, read_events, returns
from cpt.tracking.record import TrackingRecord, advance, load_record
from cpt.tracking.store import connect, ensure_store, experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000
"""Metrics in one call, the most that the REST interface takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """What one pass did for one run directory; `error` is empty when everything journaled so far is there."""

    run: Path
    rows: int
    """Journal rows copied in this pass."""
    status: str
    """RUNNING, FINISHED, FAILED; empty when nothing was sent yet."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Target:
    """Where one run's points go."""

    client: MlflowClient
    experiment: str
    config: RunConfig


def sync(folders: Sequence[Path]) -> list[SyncResult]:
    """One pass over run directories, sweeps, or a whole run root. Raises `UserError` for a folder that is none of them."""
    runs = [run for folder in folders for run in runs_in(folder)]
    return [result for run in runs if (result := _sync_guarded(run)) is not None]


def runs_in(folder: Path) -> list[RunPaths]:
    """The run directories that a folder is or holds."""
    if (folder / "config.yaml").is_file():
        return [RunPaths(folder.absolute())]
    sweeps = sorted(folder.glob("sweeps/*"))
    inside = [*folder.glob("trials/*"), *folder.glob("*-*"), *(path for sweep in sweeps for path in sweep.glob("trials/*"))]
    found = sorted(path.absolute() for path in inside if (path / "config.yaml").is_file())
    if not found:
        raise MissingInput(path=folder / "config.yaml", why="a run directory, a sweep or a run root was expected", fix="cpt sync runs/<name>-<fingerprint>")
    return [RunPaths(path) for path in found]


def _sync_guarded(run: RunPaths) -> SyncResult | None:
    """None when tracking is switched off for this run. Whatever mlflow or the network throws becomes `error`."""
    try:
        config = read_config(run.config)
        if not config.tracking.enabled:
            return None
        with _one_writer(config):
            ensure_store(config)
            return _sync_run(run, config)
    except UserError:
        raise
    except Exception as error:  # mlflow raises its own, requests', urllib3's and sqlalchemy's
        return SyncResult(run=run.root, rows=0, status="", error=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")


@contextmanager
def _one_writer(config: RunConfig) -> Iterator[None]:
    """sqlite has one writer: a second sync waits for the first's pass."""
    lock = config.runs.tracking_database.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync_run(run: RunPaths, config: RunConfig) -> SyncResult:
    client = connect(config.tracking.uri or f"sqlite:///{config.runs.tracking_database}")
    target = _Target(client, experiment_id(client, config), config)
    record = _bind(run, target, load_record(run.tracking))
    before = record.rows
    record = _copy_rows(run, client, record)
    record = _send_status(run, client, record)
    return SyncResult(run=run.root, rows=record.rows - before, status=record.status)


def _bind(run: RunPaths, target: _Target, record: TrackingRecord) -> TrackingRecord:
    """Make sure that the MLflow run exists, with parent, parameters and config."""
    if not record.run_id:
        sweep = _sweep_of(run)
        tags = {"mlflow.parentRunId": _parent(sweep, target)} if sweep else {}
        name = f"{sweep.root.name}/{run.root.name}" if sweep else run.root.name
        record = replace(record, run_id=_find_or_create(target, record.uid, name, tags | {"cpt.directory": str(run.root)}))
        record.save(run.tracking)
    if not record.described:
        _describe(run, target, record.run_id)
        record = replace(record, described=True)
        record.save(run.tracking)
    return record


def _sweep_of(run: RunPaths) -> SweepPaths | None:
    return SweepPaths(run.root.parents[1]) if run.root.parent.name == "trials" else None


def _parent(sweep: SweepPaths, target: _Target) -> str:
    record = load_record(sweep.tracking)
    if not record.run_id:
        record = replace(record, run_id=_find_or_create(target, record.uid, sweep.root.name, {"cpt.directory": str(sweep.root)}))
        record.save(sweep.tracking)
    return record.run_id


def _find_or_create(target: _Target, uid: str, name: str, tags: dict[str, str]) -> str:
    if found := target.client.search_runs([target.experiment], filter_string=f"tags.`cpt.uid` = '{uid}'", max_results=1):
        return str(found[0].info.run_id)
    return str(target.client.create_run(target.experiment, run_name=name, tags=tags | {"cpt.uid": uid}).info.run_id)


def _describe(run: RunPaths, target: _Target, run_id: str) -> None:
    """Chosen settings as parameters (never sent again: MLflow refuses another value), the whole config as an artifact."""
    from mlflow.entities import Param

    known = target.client.get_run(run_id).data.params
    params = {key: value for key, value in chosen_params(target.config).items() if key not in known}
    target.client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
    target.client.log_artifact(run_id, str(run.config))


def chosen_params(config: RunConfig) -> dict[str, str]:
    """The settings by which people compare runs, flat."""
    values: dict[str, Any] = {
        "name": config.name,
        "seed": config.seed,
        "corpus": config.corpus.name,
        "model": config.model.name,
        "peak_lr": config.peak_lr,
        "steps": config.train.steps,
        "schedule.decay": config.schedule.decay,
        "parallel.tensor": config.parallel.tensor_parallel_size,
        "parallel.pipeline": config.parallel.pipeline_parallel_size,
        "world_size": config.slurm.world_size,
    }
    for section, names in _PARAMS.items():
        values |= {f"{section}.{name}": getattr(getattr(config, section), name) for name in names}
    return {key: str(value) for key, value in values.items()}


_PARAMS = {
    "mixture": ("domain_share", "non_english_share"),
    "train": ("global_batch_size", "sequence_length", "train_tokens", "precision"),
    "optimizer": ("lr_ratio", "weight_decay"),
}


def _copy_rows(run: RunPaths, client: MlflowClient, record: TrackingRecord) -> TrackingRecord:
    """Every whole line beyond the cursor, in calls of at most `BATCH` metrics; the cursor moves after each success."""
    back = returns(read_events(run))
    for path in journal_files(run, "metrics"):
        for lines, end in _batches(path, record.offsets.get(path.name, 0)):
            rows = [row for row in (metric_row(line, back) for line in lines) if not row.superseded]
            metrics, dropped = _as_metrics(rows)
            for first in range(0, len(metrics), BATCH):
                client.log_batch(record.run_id, metrics=metrics[first : first + BATCH])
            if dropped:
                client.set_tag(record.run_id, "cpt.dropped_non_finite", ", ".join(sorted(dropped))[:5000])
            if rows:
                client.set_tag(record.run_id, "cpt.attempt", str(rows[-1].attempt))
            record = advance(record, run.tracking, path.name, end, len(rows))
    return record


def _batches(path: Path, offset: int) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Groups of parsed lines with about `BATCH` values, and the byte offset behind each; an unfinished line stays."""
    with open(path, "rb") as file:
        file.seek(offset)
        lines: list[dict[str, Any]] = []
        values = 0
        for text in file:
            if not text.endswith(b"\n"):
                break
            offset += len(text)
            if (line := parse_line(text)) is not None:
                lines.append(line)
                values += len(line["values"]) + 1
            if values >= BATCH:
                yield lines, offset
                lines, values = [], 0
        if lines:
            yield lines, offset


def _as_metrics(rows: Sequence[Any]) -> tuple[list[Any], set[str]]:
    """MLflow metrics of the rows, and the names whose value was NaN or infinite somewhere."""
    from mlflow.entities import Metric

    metrics, dropped = [], set()
    for row in rows:
        for name, value in {**row.values, "train/consumed_tokens": float(row.consumed_tokens)}.items():
            if math.isfinite(value):
                metrics.append(Metric(metric_name(name), value, row.ts_ms, row.step))
            else:
                dropped.add(metric_name(name))
    return metrics, dropped


def metric_name(name: str) -> str:
    """MLflow takes letters, digits and `_ - . space : /` only; lm-eval's comma, for one, is refused."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def _send_status(run: RunPaths, client: MlflowClient, record: TrackingRecord) -> TrackingRecord:
    status = run_status(run)
    if status == record.status:
        return record
    # `set_terminated` also writes the end time; a resumed run loses it again with the next RUNNING.
    if status == "RUNNING":
        client.update_run(record.run_id, status=status)
    else:
        client.set_terminated(record.run_id, status=status)
    if sweep := _sweep_of(run):
        _send_sweep_status(sweep, client)
    record = replace(record, status=status)
    record.save(run.tracking)
    return record


def _send_sweep_status(sweep: SweepPaths, client: MlflowClient) -> None:
    parent = load_record(sweep.tracking)
    finished = all(run_status(trial) == "FINISHED" for trial in sweep.trials())
    if sweep.table.exists():
        table = SweepTable.load(sweep.table)
        client.set_tag(parent.run_id, "cpt.chosen", f"{table.chosen}: {table.reason}")
    if finished and parent.status != "FINISHED":
        client.set_terminated(parent.run_id, status="FINISHED")
        replace(parent, status="FINISHED").save(sweep.tracking)


def run_status(run: RunPaths) -> str:
    """FINISHED when training said done, FAILED when the last attempt was given up, RUNNING otherwise (also between attempts)."""
    if run.stopped.exists() and StopRecord.load(run.stopped).reason == "done":
        return "FINISHED"
    attempts = run.attempts()
    if attempts and attempts[-1].end.exists():
        try:
            action = read_json(attempts[-1].end).get("action")
        except CptError:
            return "RUNNING"
        return "FAILED" if action in ("fail", "hold") else "RUNNING"
    return "RUNNING"


def follow(folders: Sequence[Path], seconds: float) -> Iterator[list[SyncResult]]:
    """Pass after pass, `seconds` apart, until every run is finished or given up and all its rows are there."""
    while True:
        results = sync(folders)
        yield results
        if all(result.status in ("FINISHED", "FAILED") and not result.error for result in results):
            return
        time.sleep(seconds)
