"""A run that fails, many times over: the model of `cpt.plan.reliability` event by event, to hold its closed form against.

All runs advance together, one failure of each at a time. As repairs take a constant time, the last `spare_nodes` failures say everything about the
spares: all of them are away exactly when the oldest of those failures is younger than a repair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpt.core.errors import Problem, UserError
from cpt.plan.reliability import Lost, Reliability, best_interval, expected

Floats = NDArray[np.float64]
_MOST_FAILURES = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """Means over the runs; an `error` is the mean's standard error."""

    runs: int
    ettr: float
    ettr_error: float
    failures: float
    failures_error: float
    no_spare: float
    """Share of all failures that found no spare."""
    lost: Lost
    total_error: float
    """Of `lost.total`, GPU-hours."""


def simulate(run: Reliability, runs: int = 400, seed: int = 0) -> Simulated:
    """Equal arguments give equal results. Raises `UserError` as `Reliability.check` does, and for a run that hardly ever gets from save to save."""
    if (failures := expected(run).failures) > _MOST_FAILURES:
        what, why = f"lets the run fail {failures:.3g} times", f"more than {_MOST_FAILURES:,} are not simulated"
        raise UserError(Problem(where="interval_seconds", what=what, why=why, fix=f"interval_seconds={best_interval(run):.0f}"))
    runs_ = _Runs(run, runs, np.random.default_rng(seed))
    while runs_.left.any():
        runs_.live()
    return runs_.result()


class _Runs:
    """An array a quantity, an element a run, in seconds; `spares` in node-seconds."""

    def __init__(self, run: Reliability, runs: int, random: np.random.Generator) -> None:
        self.run, self.random = run, random
        self.left = np.full(runs, run.work_seconds)
        self.saves, self.redone, self.restarts, self.queue, self.spares = np.zeros((5, runs))
        self.failures, self.unlucky = np.zeros((2, runs))
        self.waiting, self.restarting = np.zeros((2, runs))
        self.ages = np.full((runs, run.spare_nodes), np.inf)  # seconds since the last failures, the last one first

    def live(self) -> None:
        """Every run that is not done: from a failure, or the begin, to the next failure or the end."""
        on = self.left > 0
        life = np.where(on, self.random.exponential(self.run.mttf, on.size), 0.0)
        restart = np.minimum(life, self.restarting)
        trained = life - restart
        end = self._seconds_to_end()
        ends = on & (trained >= end)
        trained = np.where(ends, end, trained)
        self.restarts += restart
        self.queue += self.waiting
        self._train(trained, ends)
        self._age(self.waiting + restart + trained)
        self._fail(on & ~ends)

    def _seconds_to_end(self) -> Floats:
        """Of undisturbed training, saves included, until the last save is durable."""
        saves = np.ceil(self.left / self.run.interval_seconds - 1e-9)
        waits = self.run.period - self.run.interval_seconds
        return self.left + saves * waits + self.run.lag_seconds

    def _train(self, seconds: Floats, ends: NDArray[np.bool_]) -> None:
        """What is durable stays; the rest was for nothing."""
        run = self.run
        durable = np.maximum(0.0, np.floor((seconds - run.lag_seconds) / run.period))
        self.redone += np.where(ends, 0.0, seconds - durable * run.period)
        self.saves += np.where(ends, seconds - self.left, durable * (run.period - run.interval_seconds))
        self.left = np.where(ends, 0.0, self.left - durable * run.interval_seconds)

    def _age(self, seconds: Floats) -> None:
        """Spares that are not being repaired have waited."""
        away = np.clip(self.run.repair_seconds - self.ages, 0.0, seconds[:, None]).sum(axis=1)
        self.spares += self.run.spare_nodes * seconds - away
        self.ages += seconds[:, None]

    def _fail(self, on: NDArray[np.bool_]) -> None:
        without = on & (self.ages[:, -1] < self.run.repair_seconds) if self.run.spare_nodes else on
        self.failures += on
        self.unlucky += without
        self.ages = np.concatenate([np.zeros((on.size, 1)), self.ages], axis=1)[:, : self.run.spare_nodes]
        self.waiting = np.where(without, self.run.queue_seconds, 0.0)
        self.restarting = np.where(on, self.run.restart_seconds, 0.0)

    def result(self) -> Simulated:
        run, runs = self.run, len(self.left)
        idle = self.spares / run.nodes  # as seconds of all nodes
        parts = {"saves": self.saves, "redone": self.redone, "restarts": self.restarts, "queue": self.queue, "spares": idle}
        ettr = run.work_seconds / (run.work_seconds + self.saves + self.redone + self.restarts + self.queue)
        return Simulated(
            runs=runs,
            ettr=float(ettr.mean()),
            ettr_error=_error(ettr),
            failures=float(self.failures.mean()),
            failures_error=_error(self.failures),
            no_spare=float(self.unlucky.sum() / max(1.0, self.failures.sum())),
            lost=Lost(**{name: run.gpu_hours(float(seconds.mean())) for name, seconds in parts.items()}),
            total_error=run.gpu_hours(_error(np.sum(list(parts.values()), axis=0))),
        )


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
