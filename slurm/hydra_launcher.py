"""Hydra plugins for `cpt train -m`: seal every trial, submit one array, return at once, or wait and tell the sweeper what came out.

Hydra's own launcher for submitit composes again on the node, blocks until the last trial ends, and reports failed trials as
COMPLETED. Here a trial's config is on disk before anything is queued, so editing YAML afterwards changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cpt.config.multirun import compose_trials, run_hydra
from cpt.config.run import RunConfig
from cpt.core.errors import CptError, Problem, UserError
from cpt.core.paths import RunPaths
from slurm import sweep_wait
from slurm.sweep_launch import Caller, Launched, Standing, launch

_NAMESPACE = "hydra_plugins.cpt_slurm"
"""Hydra takes plugins from this package only; the configs in hydra_conf/hydra name it, `multirun` fills it."""

_SWEEPER = "hydra/sweeper=trials"

Objective = Callable[[RunPaths], float | None]
"""What a finished trial reached, lower is better; None when it left no number."""


@dataclass
class Task:
    """Travels through Hydra as its task function: brings in what the launcher needs, and the outcome out."""

    caller: Caller
    objective: Objective = lambda run: None
    say: Callable[[str], None] = lambda line: None
    """A line for the user, while trials are waited for."""
    launches: list[Launched] = field(default_factory=list)
    """One, unless a sweeper asks for more when it has seen what came out."""
    results: dict[int, float | str] = field(default_factory=dict)
    """Trial -> its objective, or why it has none; empty when nobody waited."""


def multirun(overrides: Sequence[str], task: Task) -> Launched:
    """Run Hydra's multirun with the plugins of this file. Returns all launches as one. Raises `UserError` before anything is submitted."""
    known = Plugins.instance().class_name_to_class
    known |= {f"{_NAMESPACE}.{plugin.__name__}": plugin for plugin in (TrialLauncher, TrialSweeper)}
    run_hydra([*_launcher(overrides), *([] if _names(overrides, "hydra/sweeper=") else [_SWEEPER]), _FOLDER], cast(TaskFunction, task))
    trials = {trial.index: trial for launched in task.launches for trial in launched.trials}
    jobs = [launched.job for launched in task.launches if launched.job]
    return Launched(sweep=task.launches[0].sweep, job=" ".join(jobs), trials=[trials[index] for index in sorted(trials)])


_FOLDER = "hydra.sweep.dir=${run_root}/sweeps/${sweep.name}"
"""Where a sweeper leaves what it found, such as Optuna's optimization_results.yaml."""


def _launcher(overrides: Sequence[str]) -> list[str]:
    """The cluster decides who starts trials. `hydra/launcher=local` alone asks for `cluster=local`; a launcher and a cluster that disagree are refused."""
    given = _names(overrides, "hydra/launcher=")
    if foreign := [name for name in given if name not in ("slurm", "local")]:
        why = "trials are sealed and submitted by our own launchers"
        raise UserError(Problem(where="hydra/launcher", what=foreign[0], why=why, fix="hydra/launcher=slurm or hydra/launcher=local"))
    if not given:
        return [*overrides, "hydra/launcher=slurm", "hydra.launcher.scheduler=''"]
    return [*overrides, *(["cluster=local"] if given[-1] == "local" and not _names(overrides, "cluster=") else [])]


def _names(overrides: Sequence[str], start: str) -> list[str]:
    return [override.removeprefix(start) for override in overrides if override.startswith(start)]


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


class TrialLauncher(Launcher):
    """Validates all trials, writes their directories, submits what is neither done nor queued."""

    def __init__(self, scheduler: str, detach: bool) -> None:
        self.scheduler = scheduler
        """Who must start the trials; empty leaves it to the cluster."""
        self.detach = detach
        """Return as soon as the array is queued."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Only keeps the task; trials' configs are composed from `hydra_conf/` as everywhere else. Raises `UserError` for a sweeper that cannot work."""
        self.task = cast(Task, task_function)
        sweeper = config.hydra.runtime.choices["hydra/sweeper"]
        if self.detach and sweeper != "trials":
            why = "it chooses the next trials by what the last ones reached, and a detached launcher does not wait for them"
            raise UserError(Problem(where="hydra/sweeper", what=str(sweeper), why=why, fix="hydra.launcher.detach=false"))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Detached, a JobReturn says only that its trial was accepted; else it has the trial's objective, or FAILED and why."""
        trials = [list(trial) for trial in job_overrides]
        configs = compose_trials(trials)
        self._check(configs[0])
        launched = launch(trials, configs, self.task.caller)
        self.task.launches.append(launched)
        if self.detach:
            return [JobReturn(overrides=trial, status=JobStatus.COMPLETED, _return_value=None) for trial in trials]
        self._wait(configs[0], launched)
        return [self._result(trial) for trial in launched.trials]

    def _check(self, config: RunConfig) -> None:
        scheduler = config.cluster.scheduler
        if self.scheduler and scheduler != self.scheduler:
            what = f"{self.scheduler}, and the scheduler of cluster {config.cluster.name} is {scheduler}"
            fix = f"hydra/launcher={scheduler}, or {'cluster=local' if self.scheduler == 'local' else 'another cluster'}"
            raise UserError(Problem(where="hydra/launcher", what=what, why="the cluster says who starts ranks", fix=fix))

    def _wait(self, config: RunConfig, launched: Launched) -> None:
        if launched.job:
            self.task.say(f"job {launched.job}: {sum(trial.state != 'done' for trial in launched.trials)} trial(s) under way; Ctrl-C leaves them running")
        trials = {trial.run: trial for trial in launched.trials}
        for run, end in sweep_wait.ends(config, list(trials)):
            self.task.results[trials[run].index] = result = self._objective(trials[run], end)
            self.task.say(f"trial {trials[run].index:03d}: {result if isinstance(result, str) else f'{result:.4f}'}  {' '.join(trials[run].overrides)}")

    def _objective(self, trial: Standing, end: str) -> float | str:
        if end != sweep_wait.DONE:
            return end
        value = self.task.objective(trial.run)
        return value if value is not None and math.isfinite(value) else f"done, and its objective is {value}"

    def _result(self, trial: Standing) -> JobReturn:
        result, overrides = self.task.results[trial.index], list(trial.overrides)
        if isinstance(result, str):
            return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=CptError(f"trial {trial.index:03d} {result}"))
        return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=result)
