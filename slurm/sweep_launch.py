"""A batch of trials: find each its place in the sweep, check all, write all, submit what is neither done nor queued."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cpt.config.fingerprint import fingerprint
from cpt.config.multirun import of_trial
from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths, SweepPaths
from cpt.core.records import SweepRecord
from slurm import arrays, client, submit

SUBMITTED = "submitted"


class Prepared(Protocol):
    """A validated run that can be written down."""

    def write(self, run: RunPaths) -> None:
        """Leave the run directory complete, sealed config included. Called from several threads, for different directories."""


class Prepare(Protocol):
    """Checks one config against data and machines. Raises `UserError`."""

    def __call__(self, config: RunConfig) -> Prepared:
        """Looks, and writes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """What the user typed, and what is done with each config. `rank_command` as in `slurm.script.rank_argv`."""

    prepare: Prepare
    command: Sequence[str]
    rank_command: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One trial after the launch. state: done, `SUBMITTED`, or SLURM's own word for one that was in the queue already."""

    index: int
    run: RunPaths
    fingerprint: str
    overrides: Sequence[str]
    state: str
    job: str = ""
    """`<array>_<task>`; empty when it is done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """What one launch did. `job` is empty when nothing was left to submit."""

    sweep: SweepPaths
    job: str
    trials: Sequence[Standing]
    """In the order in which they were asked for."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One trial as it is asked for now."""

    overrides: list[str]
    config: RunConfig
    fingerprint: str


@dataclass
class Book:
    """Every trial of the sweep so far, by index: its overrides, and the fingerprint that it was sealed with."""

    sweep: SweepPaths
    trials: list[list[str]] = field(default_factory=list)
    sealed: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, sweep: SweepPaths, known: Sequence[arrays.Submission]) -> Book:
        """Fingerprints are on record with each submission; a launcher that died before it submitted left only the configs."""
        trials = list(SweepRecord.load(sweep.sweep).trials) if sweep.sweep.is_file() else []
        sealed = {index: print_ for record in known for index, print_ in zip(record.trials, record.fingerprints, strict=True)}
        unknown = (index for index in range(len(trials)) if index not in sealed and sweep.trial(index).config.is_file())
        return cls(sweep, trials, sealed | {index: fingerprint(read_config(sweep.trial(index).config)) for index in unknown})

    def place(self, asked: Sequence[Asked]) -> list[int]:
        """The index of each: known by its overrides, or by its fingerprint when only job policy was changed on the command line; else a new one."""
        by_overrides = {tuple(trial): index for index, trial in enumerate(self.trials)}
        free = {index for index, trial in enumerate(self.trials)} - {by_overrides.get(tuple(item.overrides), -1) for item in asked}
        by_print = {self.sealed[index]: index for index in sorted(free, reverse=True) if index in self.sealed}
        places: list[int] = []
        for item in asked:
            index = by_overrides.get(tuple(item.overrides), -1)
            if index < 0:
                index = by_print.pop(item.fingerprint, len(self.trials))
                self.trials[index : index + 1] = [item.overrides]
                by_overrides[tuple(item.overrides)] = index
            places.append(index)
        return places


def launch(trials: Sequence[list[str]], configs: Sequence[RunConfig], caller: Caller) -> Launched:
    """Returns as soon as the array is queued. Raises `UserError` with the problems of all trials; then nothing was written."""
    first = configs[0]
    sweep = first.runs.sweep(first.sweep.name)
    asked = [Asked(trial, config, fingerprint(config)) for trial, config in zip(trials, configs, strict=True)]
    before = arrays.submissions(sweep)
    book = Book.read(sweep, before)
    places = book.place(asked)
    wanted = dict(zip(places, asked, strict=True))
    if problems := [*_one_shape(asked), *_same_as_before(book, wanted)]:
        raise UserError(problems)
    submit.require(first)
    queued = arrays.queued(first, [sweep.trial(index) for index in wanted])
    missing = {index: item for index, item in wanted.items() if not submit.is_done(sweep.trial(index)) and sweep.trial(index).root not in queued}
    job = _submit(book, before, missing, caller) if missing else ""
    tasks = {index: f"{job}_{task}" if "_" not in job else job for task, index in enumerate(missing)}
    standings = {index: _standing(sweep, index, item, queued, tasks.get(index, "")) for index, item in wanted.items()}
    return Launched(sweep=sweep, job=job, trials=[standings[index] for index in places])


def _standing(sweep: SweepPaths, index: int, asked: Asked, queued: Mapping[Path, client.Job], job: str) -> Standing:
    run = sweep.trial(index)
    known = Standing(index=index, run=run, fingerprint=asked.fingerprint, overrides=asked.overrides, state="done")
    if job:
        return replace(known, state=SUBMITTED, job=job)
    waiting = queued.get(run.root)
    return replace(known, state=waiting.state, job=waiting.id) if waiting else known


def _submit(book: Book, before: Sequence[arrays.Submission], missing: Mapping[int, Asked], caller: Caller) -> str:
    """Check all, seal all, queue all; returns the array's job id.

    sweep.json is there before the array: whoever dies in between leaves a sweep whose trials the next launch finds, in the queue or not.
    """
    prepared = _check(missing, caller.prepare)
    first = next(iter(missing.values())).config
    record = SweepRecord(name=first.sweep.name, job=before[-1].job if before else "", command=list(caller.command), trials=book.trials)
    with _alone(book.sweep, before):
        with ThreadPoolExecutor(arrays.WRITERS) as pool:
            list(pool.map(lambda index: prepared[index].write(book.sweep.trial(index)), prepared))
        record.save(book.sweep.sweep)
        job = arrays.submit_trials(first, book.sweep, {index: item.fingerprint for index, item in missing.items()}, caller.rank_command)
        replace(record, job=job).save(book.sweep.sweep)
    return job


def _check(missing: Mapping[int, Asked], prepare: Prepare) -> dict[int, Prepared]:
    prepared: dict[int, Prepared] = {}
    problems: list[Problem] = []
    for index, item in missing.items():
        try:
            prepared[index] = prepare(item.config)
        except UserError as error:
            problems += (of_trial(index, item.overrides, problem) for problem in error.problems)
    if problems:
        raise UserError(_once(problems))
    return prepared


@contextmanager
def _alone(sweep: SweepPaths, before: Sequence[arrays.Submission]) -> Iterator[None]:
    """Two launches of one sweep at the same time would submit its trials twice. The kernel releases the lock of a launcher that dies."""
    sweep.root.mkdir(parents=True, exist_ok=True)
    with open(sweep.root / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if arrays.submissions(sweep) != list(before):
            why = "both would submit the same trials"
            raise UserError(Problem(where="sweep.name", what=f"another launch of {sweep.root.name} came in between", why=why, fix="the same command again"))
        yield


def _once(problems: list[Problem]) -> list[Problem]:
    """What is wrong with every trial in the same way, a corpus that is not prepared, is said once."""
    seen: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        seen.setdefault((problem.where.partition("): ")[2], problem.what), problem)
    return list(seen.values())


def _one_shape(asked: Sequence[Asked]) -> Iterator[Problem]:
    """An array asks for nodes once, so all of its trials need the same ones."""
    first = asked[0].config
    for index, item in enumerate(asked):
        for name in ("slurm", "cluster", "sweep", "run_root"):
            if getattr(item.config, name) != getattr(first, name):
                problem = Problem(where=name, what="differs between trials", why="one sweep is one job array", fix="sweep each apart")
                yield of_trial(index, item.overrides, problem)


def _same_as_before(book: Book, wanted: Mapping[int, Asked]) -> Iterator[Problem]:
    """A trial that was sealed under this name must still mean the same."""
    for index, item in wanted.items():
        if book.sealed.get(index, item.fingerprint) != item.fingerprint:
            why = f"{book.sweep.trial(index).config} was sealed with other settings, and one table compares all trials"
            yield of_trial(index, item.overrides, Problem(where="sweep.name", what=item.config.sweep.name, why=why, fix="sweep.name=<a new name>"))
