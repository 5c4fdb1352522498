"""Hydra plugins for `cpt train -m`: seal every trial, submit one array, return at once.

Hydra's own launcher for submitit composes again on the node, blocks until the last trial ends, and reports failed trials as
COMPLETED. Here a trial's config is on disk before anything is queued, so editing YAML afterwards changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cpt.config.fingerprint import fingerprint
from cpt.config.multirun import compose_trials, of_trial, run_hydra
from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths, SweepPaths
from cpt.core.records import SweepRecord
from slurm import arrays, submit

_NAMESPACE = "hydra_plugins.cpt_slurm"
"""Hydra takes plugins from this package only; the configs in hydra_conf/hydra name it, `multirun` fills it."""


class Prepared(Protocol):
    """A validated run that can be written down."""

    def write(self, run: RunPaths) -> None:
        """Leave the run directory complete, sealed config included."""


class Prepare(Protocol):
    """Checks one config against data and machines. Raises `UserError`."""

    def __call__(self, config: RunConfig) -> Prepared:
        """Looks, and writes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One trial after the launch. state: done | submitted, or SLURM's own word for one that was in the queue already."""

    index: int
    run: RunPaths
    overrides: Sequence[str]
    state: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """What a multirun did. `job` is empty when nothing was left to submit."""

    sweep: SweepPaths
    job: str
    trials: Sequence[Standing]


def multirun(overrides: Sequence[str], prepare: Prepare, command: Sequence[str]) -> Launched:
    """Run Hydra's multirun with the plugins of this file. Raises `UserError` before anything is submitted."""
    known = Plugins.instance().class_name_to_class
    known |= {f"{_NAMESPACE}.{plugin.__name__}": plugin for plugin in (SlurmLauncher, TrialSweeper)}
    chosen = [override for override in overrides if not override.startswith(("hydra/launcher=", "hydra/sweeper="))]
    if foreign := [override for override in overrides if override.startswith("hydra/") and override not in ("hydra/launcher=slurm", "hydra/sweeper=trials")]:
        raise UserError(Problem(where="hydra", what=" ".join(foreign), why="trials are sealed and submitted by our own launcher", fix="hydra/launcher=slurm"))
    task = _Task(prepare, list(command))
    run_hydra([*chosen, "hydra/launcher=slurm", "hydra/sweeper=trials"], cast(TaskFunction, task))
    assert task.launched is not None
    return task.launched


class _Task:
    """Travels through Hydra as its task function: brings our `prepare` in and the outcome out."""

    def __init__(self, prepare: Prepare, command: list[str]) -> None:
        self.prepare = prepare
        self.command = command
        self.launched: Launched | None = None


class TrialSweeper(BasicSweeper):
    """All combinations, as the basic sweeper makes them, in one batch; without composing each one first or writing multirun.yaml."""

    def sweep(self, arguments: list[str]) -> Any:
        """One launch for all trials."""
        assert self.hydra_context is not None and self.launcher is not None
        parsed = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)
        (trials,) = self.split_arguments(parsed, None)
        return self.launcher.launch(trials, initial_job_idx=0)


class SlurmLauncher(Launcher):
    """Validates all trials, writes their directories, submits what is neither done nor queued."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Only keeps the task; the trials' configs are composed from `hydra_conf/` as everywhere else."""
        self.task = cast(_Task, task_function)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Returns as soon as the array is queued; a JobReturn per trial says only that it was accepted."""
        trials = [list(trial) for trial in job_overrides]
        configs = compose_trials(trials)
        sweep = configs[0].runs.sweep(configs[0].sweep.name)
        self.task.launched = launch(sweep, dict(enumerate(configs)), trials, self.task)
        return [JobReturn(overrides=trial, status=JobStatus.COMPLETED, _return_value=None) for trial in trials]


def launch(sweep: SweepPaths, configs: dict[int, RunConfig], trials: list[list[str]], task: _Task) -> Launched:
    """Write and submit the trials that need it, by index into `trials`."""
    first = configs[0]
    before = SweepRecord.load(sweep.sweep).trials if sweep.sweep.is_file() else []
    every = [*before, *(trial for trial in trials if trial not in before)]
    places = {every.index(trial): config for trial, config in zip(trials, configs.values(), strict=True)}
    if problems := [*_one_shape(trials, configs), *_same_as_before(sweep, every, places)]:
        raise UserError(problems)
    prepared = _prepare_all(sweep, every, places, task)
    submit.require(first)
    for index, run in prepared.items():
        run.write(sweep.trial(index))
    done = {index for index in places if submit.is_done(sweep.trial(index))}
    queued = arrays.active(first, [sweep.trial(index) for index in places])
    missing = [index for index in sorted(places) if index not in done and sweep.trial(index).root not in queued]
    job = arrays.submit_trials(first, sweep, [sweep.trial(index) for index in missing]) if missing else ""
    if missing:
        SweepRecord(name=first.sweep.name, job=job, command=task.command, trials=every).save(sweep.sweep)
    standings = [_standing(sweep, index, every, done, queued) for index in sorted(places)]
    return Launched(sweep=sweep, job=job, trials=standings)


def _prepare_all(sweep: SweepPaths, every: list[list[str]], places: dict[int, RunConfig], task: _Task) -> dict[int, Prepared]:
    """Trials that have no directory yet, checked; raises `UserError` with the problems of all."""
    prepared: dict[int, Prepared] = {}
    problems: list[Problem] = []
    for index, config in places.items():
        if sweep.trial(index).config.is_file():
            continue
        try:
            prepared[index] = task.prepare(config)
        except UserError as error:
            problems += (of_trial(index, every[index], problem) for problem in error.problems)
    if problems:
        raise UserError(_once(problems))
    return prepared


def _once(problems: list[Problem]) -> list[Problem]:
    """What is wrong with every trial in the same way, a corpus that is not prepared, is said once."""
    seen: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        seen.setdefault((problem.where.partition("): ")[2], problem.what), problem)
    return list(seen.values())


def _one_shape(trials: list[list[str]], configs: dict[int, RunConfig]) -> Iterator[Problem]:
    """An array asks for nodes once, so all of its trials need the same ones."""
    first = configs[0]
    for index, config in configs.items():
        for name in ("slurm", "cluster", "sweep", "run_root"):
            if getattr(config, name) != getattr(first, name):
                yield of_trial(
                    index, trials[index], Problem(where=name, what="differs between trials", why="one sweep is one job array", fix="sweep each apart")
                )


def _same_as_before(sweep: SweepPaths, every: list[list[str]], places: dict[int, RunConfig]) -> Iterator[Problem]:
    """A trial that was sealed under this name must still mean the same."""
    for index, config in places.items():
        path = sweep.trial(index).config
        if path.is_file() and fingerprint(read_config(path)) != fingerprint(config):
            why = f"{path} was sealed with other settings, and one table compares all trials"
            yield of_trial(index, every[index], Problem(where="sweep.name", what=config.sweep.name, why=why, fix="sweep.name=<a new name>"))


def _standing(sweep: SweepPaths, index: int, every: list[list[str]], done: set[int], queued: dict[Any, str]) -> Standing:
    run = sweep.trial(index)
    state = "done" if index in done else queued.get(run.root, "submitted")
    return Standing(index=index, run=run, overrides=every[index], state=state)
