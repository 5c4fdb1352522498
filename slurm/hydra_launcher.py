"""Hydra plugins for `cpt train -m`: seal every trial, submit one array, return at once.

Hydra's own launcher for submitit composes again on the node, blocks until the last trial ends, and reports failed trials as
COMPLETED. Here a trial's config is on disk before anything is queued, so editing YAML afterwards changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
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


SUBMITTED = "submitted"


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
    """One trial after the launch. state: done, `SUBMITTED`, or SLURM's own word for one that was in the queue already."""

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


def multirun(overrides: Sequence[str], prepare: Prepare, command: Sequence[str], rank_command: Sequence[str] = ()) -> Launched:
    """Run Hydra's multirun with the plugins of this file. Raises `UserError` before anything is submitted.

    `command` is what the user typed, `rank_command` as in `slurm.script.rank_argv`.
    """
    known = Plugins.instance().class_name_to_class
    known |= {f"{_NAMESPACE}.{plugin.__name__}": plugin for plugin in (SlurmLauncher, TrialSweeper)}
    chosen = [override for override in overrides if not override.startswith(("hydra/launcher=", "hydra/sweeper="))]
    if foreign := [override for override in overrides if override.startswith("hydra/") and override not in ("hydra/launcher=slurm", "hydra/sweeper=trials")]:
        raise UserError(Problem(where="hydra", what=" ".join(foreign), why="trials are sealed and submitted by our own launcher", fix="hydra/launcher=slurm"))
    task = _Task(prepare, list(command), rank_command)
    run_hydra([*chosen, "hydra/launcher=slurm", "hydra/sweeper=trials"], cast(TaskFunction, task))
    assert task.launched is not None
    return task.launched


class _Task:
    """Travels through Hydra as its task function: brings our `prepare` in and the outcome out."""

    def __init__(self, prepare: Prepare, command: list[str], rank_command: Sequence[str]) -> None:
        self.prepare = prepare
        self.command = command
        self.rank_command = rank_command
        self.launched: Launched | None = None


class TrialSweeper(Sweeper):
    """All combinations, as the basic sweeper makes them, in one batch; without composing each one first or writing multirun.yaml."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra hands in what it has loaded; the launcher is the one that the config names."""
        self.loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """One launch for all trials."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(arguments)
        (trials,) = BasicSweeper.split_arguments(parsed, None)
        assert self.launcher is not None
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
        self.task.launched = launch(sweep, configs, trials, self.task)
        return [JobReturn(overrides=trial, status=JobStatus.COMPLETED, _return_value=None) for trial in trials]


def launch(sweep: SweepPaths, configs: Sequence[RunConfig], trials: list[list[str]], task: _Task) -> Launched:
    """Write and submit those trials that are neither done nor queued. Raises `UserError` with the problems of all, writing nothing."""
    first = configs[0]
    every, places = _places(sweep, configs, trials)
    if problems := [*_one_shape(trials, configs), *_same_as_before(sweep, every, places)]:
        raise UserError(problems)
    submit.require(first)
    queued = arrays.active(first, [sweep.trial(index) for index in places])
    states = {index: _state(sweep.trial(index), queued) for index in sorted(places)}
    missing = {index: places[index] for index, state in states.items() if state == SUBMITTED}
    job = _submit(sweep, every, missing, task) if missing else ""
    standings = [Standing(index=index, run=sweep.trial(index), overrides=every[index], state=state) for index, state in states.items()]
    return Launched(sweep=sweep, job=job, trials=standings)


def _places(sweep: SweepPaths, configs: Sequence[RunConfig], trials: list[list[str]]) -> tuple[list[list[str]], dict[int, RunConfig]]:
    """Every trial of the sweep so far with the new ones behind, and where the asked ones stand among them.

    A trial is found again by its overrides, or by its fingerprint when only job policy was changed on the command line.
    """
    every = list(SweepRecord.load(sweep.sweep).trials) if sweep.sweep.is_file() else []
    known = {index: fingerprint(read_config(sweep.trial(index).config)) for index in range(len(every)) if sweep.trial(index).config.is_file()}
    places: dict[int, RunConfig] = {}
    for trial, config in zip(trials, configs, strict=True):
        if trial in every:
            index = every.index(trial)
        else:
            same = [found for found, print_ in known.items() if print_ == fingerprint(config) and found not in places and every[found] not in trials]
            index = same[0] if same else len(every)
            every[index : index + 1] = [trial]
        places[index] = config
    return every, places


def _submit(sweep: SweepPaths, every: list[list[str]], missing: dict[int, RunConfig], task: _Task) -> str:
    """Check all, seal all, queue all; returns the array's job id."""
    prepared: dict[int, Prepared] = {}
    problems: list[Problem] = []
    for index, config in missing.items():
        try:
            prepared[index] = task.prepare(config)
        except UserError as error:
            problems += (of_trial(index, every[index], problem) for problem in error.problems)
    if problems:
        raise UserError(_once(problems))
    for index, run in prepared.items():
        run.write(sweep.trial(index))
    first = next(iter(missing.values()))
    job = arrays.submit_trials(first, sweep, [sweep.trial(index) for index in missing], task.rank_command)
    SweepRecord(name=first.sweep.name, job=job, command=task.command, trials=every).save(sweep.sweep)
    return job


def _state(run: RunPaths, queued: Mapping[Path, str]) -> str:
    return "done" if submit.is_done(run) else queued.get(run.root, SUBMITTED)


def _once(problems: list[Problem]) -> list[Problem]:
    """What is wrong with every trial in the same way, a corpus that is not prepared, is said once."""
    seen: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        seen.setdefault((problem.where.partition("): ")[2], problem.what), problem)
    return list(seen.values())


def _one_shape(trials: list[list[str]], configs: Sequence[RunConfig]) -> Iterator[Problem]:
    """An array asks for nodes once, so all of its trials need the same ones."""
    for index, config in enumerate(configs):
        for name in ("slurm", "cluster", "sweep", "run_root"):
            if getattr(config, name) != getattr(configs[0], name):
                problem = Problem(where=name, what="differs between trials", why="one sweep is one job array", fix="sweep each apart")
                yield of_trial(index, trials[index], problem)


def _same_as_before(sweep: SweepPaths, every: list[list[str]], places: dict[int, RunConfig]) -> Iterator[Problem]:
    """A trial that was sealed under this name must still mean the same."""
    for index, config in places.items():
        path = sweep.trial(index).config
        if path.is_file() and fingerprint(read_config(path)) != fingerprint(config):
            why = f"{path} was sealed with other settings, and one table compares all trials"
            yield of_trial(index, every[index], Problem(where="sweep.name", what=config.sweep.name, why=why, fix="sweep.name=<a new name>"))
