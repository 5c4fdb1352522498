"""What failing nodes cost a run, in closed form, and what to choose against it: the interval between saves, spare nodes, the signal's lead.

The model. Nodes fail independently at a constant rate, also while the job restarts or saves; not while it waits in the queue, where it holds none.
The job has one save under way at most: the next one waits for it. A failure falls back to the last save that is durable. Repairs take a constant time,
idle spares do not fail, and a node that the queue lent goes back when one of ours is repaired. `cpt.plan.simulate` plays the same model event by event.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cpt.core import units
from cpt.core.errors import Problem, UserError

DAY = 86_400.0
RATES = {"RSC-2": 2.34e-3, "Llama-3": 3.79e-3, "RSC-1": 6.50e-3}
"""Published failures per node-day, nodes of 8 GPUs. RSC: Meta's clusters (Kokolis et al. 2025, HPCA); Llama-3: 419 unexpected interruptions in 54 days on
2,048 nodes (arXiv 2407.21783, section 3.3.4)."""
PESSIMISTIC = 3.7
"""RSC-1's jobs of 1,024 GPUs failed that much more often (each 7.9 h) than its rate says (28.8 h)."""
MOST_SPARES = 8
INTERVAL_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
_HOPELESS = 50.0
"""MTTFs without a failure that one save would need: the chance is e^-50."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """A run and what it meets. Seconds everywhere."""

    nodes: int
    gpus_per_node: int = 8
    failures_per_node_day: float
    interval_seconds: float
    """Training between the end of a save and the begin of the next."""
    blocking_seconds: float
    """Training stands still that long for each save."""
    lag_seconds: float = 0.0
    """An asynchronous save is durable only that long after training went on."""
    restart_seconds: float
    """From a failure to the next step: noticed, launched again, loaded."""
    queue_seconds: float = 0.0
    """Before that, where no spare is at hand."""
    spare_nodes: int = 0
    repair_seconds: float = DAY
    """Until a lost node is a spare again. Where an allocation gets no node back, until the job's next one: its time limit."""
    work_seconds: float
    """Training that the run needs, without a failure or a save."""

    @property
    def mttf(self) -> float:
        """Mean seconds between failures of any of the nodes."""
        return DAY / (self.nodes * self.failures_per_node_day)

    @property
    def period(self) -> float:
        """From save to save, undisturbed. Shorter than the lag, an interval waits for the save before."""
        return max(self.interval_seconds, self.lag_seconds) + self.blocking_seconds

    def gpu_hours(self, seconds: float) -> float:
        """Of all working nodes."""
        return seconds * self.nodes * self.gpus_per_node / 3600

    def problems(self) -> Iterator[Problem]:
        """What makes no sense; `where` is the field."""
        for name in ("nodes", "gpus_per_node", "failures_per_node_day", "interval_seconds", "blocking_seconds", "work_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                yield Problem(where=name, what=f"is {getattr(self, name)}", why="must be greater than zero", fix=f"{name}=<a positive number>")
        for name in ("lag_seconds", "restart_seconds", "queue_seconds", "spare_nodes", "repair_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                yield Problem(where=name, what=f"is {getattr(self, name)}", why="cannot be negative or endless", fix=f"{name}=0")

    def check(self) -> None:
        """Raises `UserError` for numbers without sense, and for a run that would never get from one save to the next."""
        if problems := list(self.problems()):
            raise UserError(problems)
        if (self.period + self.lag_seconds + self.restart_seconds) / self.mttf > _HOPELESS:
            what = f"is {units.duration(self.interval_seconds)}, and a node fails each {units.duration(self.mttf)}"
            fix = f"interval_seconds={best_interval(self):.0f}, or a faster save and restart"
            raise UserError(Problem(where="interval_seconds", what=what, why="hardly ever would a save become durable", fix=fix))


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """GPU-hours that did not train, by kind."""

    saves: float
    """Training stood still."""
    redone: float
    """Computed, lost with a failure, computed again; saves among it included."""
    restarts: float
    queue: float
    """Nobody bills the wait; it counts as the nodes' time because the run ends later."""
    spares: float
    """Idle and healthy."""

    @property
    def total(self) -> float:
        """All kinds."""
        return self.saves + self.redone + self.restarts + self.queue + self.spares


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Means over the run."""

    ettr: float
    """Effective training time ratio: `work_seconds` over the wall clock."""
    wall_seconds: float
    failures: float
    """Each is one restart that begins."""
    no_spare: float
    """Share of failures that find no spare."""
    lost: Lost


def expected(run: Reliability) -> Expected:
    """The closed form. Raises `UserError` as `Reliability.check` does.

    Daly's complete model, T = M e^(R/M) (e^((dt+w)/M) - 1) for each interval (Daly 2006, doi 10.1016/j.future.2004.11.016), with two additions. A life between
    failures, exponential of mean M, makes floor((life - lag) / period) saves durable, so the lag stands in the exponent beside the restart R, and the
    run's end waits for it once more. Each failure waits for the queue with a chance p and meets no other there, so M becomes M + p queue. Given p
    this is exact; p itself is within a percent of ETTR while the queue is shorter than a third of M. Beyond, ask `cpt.plan.simulate`.
    """
    run.check()
    waits, wall = _settle(run)
    mttf, intervals = run.mttf, run.work_seconds / run.interval_seconds
    lives = _lives(run)  # that reached training
    failures = lives * math.exp(run.restart_seconds / mttf)
    saves = intervals * (run.period - run.interval_seconds) + run.lag_seconds
    busy = sum(_at_least(count, run, waits, wall) for count in range(1, run.spare_nodes + 1))
    lost = Lost(
        saves=run.gpu_hours(saves),
        redone=run.gpu_hours(max(0.0, lives * mttf - run.work_seconds - saves)),
        restarts=run.gpu_hours(lives * mttf * math.expm1(run.restart_seconds / mttf)),
        queue=run.gpu_hours(failures * waits * run.queue_seconds),
        spares=(run.spare_nodes - busy) * wall * run.gpus_per_node / 3600,
    )
    return Expected(ettr=run.work_seconds / wall, wall_seconds=wall, failures=failures, no_spare=waits, lost=lost)


def _lives(run: Reliability) -> float:
    """How often training ends in a failure; times M, how long it goes on in all. To finish n intervals takes n M e^(lag/M) (e^(period/M) - 1) + M (e^(lag/M) - 1)."""
    intervals, lag = run.work_seconds / run.interval_seconds, run.lag_seconds / run.mttf
    return intervals * math.exp(lag) * math.expm1(run.period / run.mttf) + math.expm1(lag)


def _settle(run: Reliability) -> tuple[float, float]:
    """(share of failures without a spare, wall seconds): who waits in the queue loses no node meanwhile; bisection finds where both hold."""
    low, high = 0.0, 1.0
    failures = _lives(run) * math.exp(run.restart_seconds / run.mttf)
    for _ in range(50):
        waits = (low + high) / 2
        wall = failures * (run.mttf + waits * run.queue_seconds)
        if _at_least(run.spare_nodes, run, waits, wall) > waits:
            low = waits
        else:
            high = waits
    return waits, wall


def _at_least(count: int, run: Reliability, waits: float, wall: float) -> float:
    """Chance that the last `count` failures are all younger than a repair, a mean over the run: so many nodes are away.

    Without waits that is M/G/infinity: Poisson of mean min(time since the begin, repair) / M, and while it fills, an Erlang's expected rest. Each of
    the `count` failures waited with the chance `waits`, taken as independent, and those waits leave less time to fail in.
    """
    chance = 0.0
    for waited in range(count + 1):
        share = math.comb(count, waited) * waits**waited * (1 - waits) ** (count - waited)
        exposed = max(0.0, min(run.repair_seconds, wall) - waited * run.queue_seconds)
        settled = poisson_tail(count, exposed / run.mttf)
        filling = exposed * settled - count * run.mttf * poisson_tail(count + 1, exposed / run.mttf)
        chance += share * (max(0.0, filling) + max(0.0, wall - run.repair_seconds) * settled) / wall
    return chance


def poisson_tail(count: int, mean: float) -> float:
    """Chance of `count` or more."""
    below, term = 0.0, math.exp(-mean)
    for k in range(count):
        below, term = below + term, term * mean / (k + 1)
    return max(0.0, 1.0 - below)


def first_order_ettr(run: Reliability) -> float:
    """Meta's formula (Kokolis et al. 2025), without lag and queue: (1 - (u0 + dt/2)/M) / (1 + w/dt). Negative where failures outrun it; `expected` is not."""
    lost = (run.restart_seconds + run.interval_seconds / 2) / run.mttf
    return (1 - lost) / (1 + run.blocking_seconds / run.interval_seconds)


def young(run: Reliability) -> float:
    """sqrt(2 w M) seconds (Young 1974)."""
    return math.sqrt(2 * run.blocking_seconds * run.mttf)


def daly(run: Reliability) -> float:
    """Seconds, the higher-order estimate (Daly 2006): sqrt(2 w M) (1 + sqrt(w/2M)/3 + (w/2M)/9) - w, and M where w >= 2M."""
    half = run.blocking_seconds / (2 * run.mttf)
    return run.mttf if half >= 1 else young(run) * (1 + math.sqrt(half) / 3 + half / 9) - run.blocking_seconds


def best_interval(run: Reliability) -> float:
    """Seconds of least expected time: with x = dt/M, where log(1 - x) + x = -w/M, by bisection. Restart, queue and spares do not move it; never below the lag."""
    low, high = 0.0, 1.0
    for _ in range(60):
        x = (low + high) / 2
        if math.log1p(-x) + x > -run.blocking_seconds / run.mttf:
            low = x
        else:
            high = x
    return min(max(low * run.mttf, run.lag_seconds), run.work_seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An interval with a number of spares, and what comes of it."""

    interval_seconds: float
    spare_nodes: int
    expected: Expected


@dataclass(frozen=True, kw_only=True, slots=True)
class SignalLead:
    """`slurm.signal_lead` and what hangs on it."""

    seconds: int
    save_seconds: float
    """Until a save that begins at the signal is durable, at worst."""
    save_gpu_hours: float
    """Each preemption costs that in time for the save, besides restart and queue."""
    missed_gpu_hours: float
    """And that, on average, when the save is not durable in time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What to choose, and the alternatives for a table or a picture."""

    best: Choice
    chosen: Choice
    """As the run is configured."""
    young_seconds: float
    daly_seconds: float
    safe_spare_nodes: int
    """Of 100 moments, at 99 no more nodes are under repair."""
    by_interval: tuple[Choice, ...]
    """`INTERVAL_FACTORS` times the best, with the run's own spares."""
    by_spares: tuple[Choice, ...]
    """0 to `MOST_SPARES`, at the best interval."""
    signal: SignalLead


def advise(run: Reliability, step_seconds: float = 0.0) -> Advice:
    """Least GPU-hours lost, idle spares included. Raises `UserError` as `Reliability.check` does."""
    run.check()
    best = replace(run, interval_seconds=best_interval(run))
    by_spares = tuple(choose(replace(best, spare_nodes=count)) for count in range(MOST_SPARES + 1))
    longest = min(run.work_seconds, _HOPELESS / 2 * run.mttf)  # of short runs, and of such that would not get through
    intervals = [min(factor * best.interval_seconds, longest) for factor in INTERVAL_FACTORS]
    return Advice(
        best=min(by_spares, key=lambda choice: choice.expected.lost.total),
        chosen=choose(run),
        young_seconds=young(run),
        daly_seconds=daly(run),
        safe_spare_nodes=safe_spares(run),
        by_interval=tuple(choose(replace(run, interval_seconds=interval)) for interval in dict.fromkeys(intervals)),
        by_spares=by_spares,
        signal=signal_lead(best, step_seconds),
    )


def choose(run: Reliability) -> Choice:
    """`expected`, with what was chosen beside it."""
    return Choice(interval_seconds=run.interval_seconds, spare_nodes=run.spare_nodes, expected=expected(run))


def safe_spares(run: Reliability, quantile: float = 0.99) -> int:
    """Nodes under repair at the same time, at that quantile of a Poisson of mean repair/M."""
    count, mean = 0, run.repair_seconds / run.mttf
    while poisson_tail(count + 1, mean) > 1 - quantile:
        count += 1
    return count


def signal_lead(run: Reliability, step_seconds: float) -> SignalLead:
    """The signal finds a step under way, and a save, which the last one waits for; half as much again for a storage that others use too.

    At least half a minute of margin: SLURM looks at time limits that often. (It may signal a minute early; that only ends the job sooner.)
    """
    save = step_seconds + run.lag_seconds + run.blocking_seconds + run.lag_seconds
    return SignalLead(
        seconds=math.ceil(save + max(30.0, save / 2)),
        save_seconds=save,
        save_gpu_hours=run.gpu_hours(run.blocking_seconds + run.lag_seconds),
        missed_gpu_hours=run.gpu_hours(run.period / 2 + run.lag_seconds),
    )
