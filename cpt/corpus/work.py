"""Units of a planned corpus, run here: with all cores, one stage after the other, whatever is missing and nothing else."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from cpt.core.errors import CptError, Problem, UserError
from cpt.core.paths import DataPaths
from cpt.corpus.pipeline import Pipeline, Stage, open_pipeline
from cpt.corpus.units import run_unit

_SINGLE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")

_SMALL = 20_000_000
"""Bytes of input that are done before other processes would have begun."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is. `done` of `units`, which are `done_bytes` of `bytes`; `begun_bytes` were done before anything began `seconds` ago."""

    stage: str
    done: int
    units: int
    done_bytes: int
    bytes: int
    begun_bytes: int
    seconds: float

    @property
    def left(self) -> float | None:
        """Seconds until the end of the stage at the speed so far; None before a unit is done."""
        made = self.done_bytes - self.begun_bytes
        return (self.bytes - self.done_bytes) * self.seconds / made if made and self.seconds else None


Watch = Callable[[Progress], object]


def run_here(pipeline: Pipeline, workers: int, watch: Watch) -> None:
    """Every stage. Raises `UserError` for what the user can mend; what is done by then stays done."""
    pipeline.write()
    with _each_of(workers, sum(shard.bytes for shard in pipeline.plan.shards)) as each:
        for stage in pipeline.stages:
            if missing := stage.missing():
                _run_stage(pipeline, stage, missing, each, watch)


def run_units(folder: Path, stage: str, units: Sequence[int], workers: int) -> None:
    """What one task of an array does, on its node: those of `units` that are not done. Raises as `run_here`."""
    pipeline = _opened(folder)
    found = next(each for each in pipeline.stages if each.name == stage)
    mine = sorted(set(units) & set(found.missing()))
    with _each_of(min(workers, len(mine)), sum(found.sizes[unit] for unit in mine)) as each:
        if mine:
            _run_stage(pipeline, found, mine, each, lambda progress: None)


@contextmanager
def alone(paths: DataPaths) -> Iterator[None]:
    """Raises `UserError` while another process here prepares the same corpus. The kernel releases the lock of one that dies."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with open(paths.root / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(Problem(where=str(paths.root), what="is being prepared", why="another process holds its lock", fix="wait for it")) from None
        except OSError:
            pass  # a file system without locks has nothing to refuse with
        yield


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def _run_stage(pipeline: Pipeline, stage: Stage, missing: Sequence[int], each: _Each, watch: Watch) -> None:
    begun, whole = time.monotonic(), sum(stage.sizes)
    before = whole - sum(stage.sizes[unit] for unit in missing)
    done, made = len(stage.records) - len(missing), before
    watch(Progress(stage.name, done, len(stage.records), made, whole, before, 0.0))
    for unit in each(pipeline, stage, missing):
        done, made = done + 1, made + stage.sizes[unit]
        watch(Progress(stage.name, done, len(stage.records), made, whole, before, time.monotonic() - begun))


_Each = Callable[[Pipeline, Stage, Sequence[int]], Iterator[int]]
"""Runs units of a stage and gives each when it is done."""


@contextmanager
def _each_of(workers: int, size: int) -> Iterator[_Each]:
    """In this process, or by that many others, which live as long as this does: what they have learned of words stays with them."""
    if workers <= 1 or size < _SMALL:
        yield _one_by_one
        return
    with _single_threaded(), ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield partial(_side_by_side, pool)


def _one_by_one(pipeline: Pipeline, stage: Stage, units: Sequence[int]) -> Iterator[int]:
    for unit in units:
        _run(pipeline, stage, unit)
        yield unit


def _side_by_side(pool: ProcessPoolExecutor, pipeline: Pipeline, stage: Stage, units: Sequence[int]) -> Iterator[int]:
    """The largest first, so that the end is not spent waiting for one."""
    waiting = {pool.submit(_run_by_name, pipeline.folder, stage.name, unit): unit for unit in sorted(units, key=lambda unit: -stage.sizes[unit])}
    try:
        while waiting:
            ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ended:
                future.result()
                yield waiting.pop(future)
    except BrokenProcessPool:
        raise CptError(f"{stage.name}: a worker died: killed, or out of memory? What is done stays done: the same command goes on") from None
    finally:
        for future in waiting:
            future.cancel()


def _run_by_name(folder: Path, stage: str, unit: int) -> None:
    """In a process of a pool."""
    pipeline = _opened(folder)
    _run(pipeline, next(each for each in pipeline.stages if each.name == stage), unit)


def _run(pipeline: Pipeline, stage: Stage, unit: int) -> None:
    try:
        run_unit(pipeline, stage.name, unit)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        folder = stage.records[unit].parent
        why = f"{stage.name} writes there; what is done stays done"
        raise UserError(Problem(where=str(folder), what="no space left on its disk", why=why, fix="free some, then the same command again")) from None


@cache
def _opened(folder: Path) -> Pipeline:
    return open_pipeline(folder)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """For processes started within: as many of them as there are cores, so one thread each."""
    before = {name: os.environ.get(name) for name in (*_SINGLE, "TOKENIZERS_PARALLELISM")}
    os.environ.update(dict.fromkeys(_SINGLE, "1") | {"TOKENIZERS_PARALLELISM": "false"})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
