"""`cpt plan --reliability`: what failures cost this run, and what saves and spares to hold against them, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cpt.config.run import RunConfig
from cpt.core import units
from cpt.core.errors import Problem, UserError
from cpt.plan.cost import reliability
from cpt.plan.reliability import PESSIMISTIC, RATES, Advice, Choice, Reliability, advise, expected
from cpt.plan.simulate import simulate
from cpt.plan.step import step_seconds
from cpt.plan.workload import workload

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, columns, rows."""


def ask(config: RunConfig) -> tuple[Reliability, Advice]:
    """The run as failures meet it, and the advice. Raises `UserError` where no failures are expected."""
    seconds = step_seconds(workload(config))["total"]
    run = reliability(config, seconds)
    if run is None:
        why = "without failures there is nothing to weigh"
        raise UserError(Problem(where="cluster.rates.failures_per_node_day", what="is 0", why=why, fix="cluster.rates.failures_per_node_day=0.00379"))
    return run, advise(run, seconds)


def rows(config: RunConfig, run: Reliability, advice: Advice) -> Iterator[Table]:
    """By rate of failures, by interval, by spares; then what to type."""
    yield _by_rate(run)
    columns = ("interval", "steps", "failures", "effective", "GPU-hours lost", "of it saves", "redone", "restarts and queue", "idle spares")
    lines = [_choice((units.duration(choice.interval_seconds), f"{_steps(config, run, choice):,}"), choice) for choice in (advice.chosen, *advice.by_interval)]
    young, daly = units.duration(advice.young_seconds), units.duration(advice.daly_seconds)
    yield f"the chosen interval between saves, and 1/4, 1/2, 1, 2, 4 times the best (Young says {young}, Daly {daly})", columns, lines
    yield "spare nodes at the best interval", ("spares", "", *columns[2:]), [_choice((str(choice.spare_nodes), ""), choice) for choice in advice.by_spares]
    yield "advice", ("what", "to type", "why"), list(_advice(config, run, advice))


def _chosen_steps(config: RunConfig) -> int:
    return config.checkpoint.fast_interval if config.checkpoint.fast_folder else config.checkpoint.interval


def _steps(config: RunConfig, run: Reliability, choice: Choice) -> int:
    return max(1, round(choice.interval_seconds / run.interval_seconds * _chosen_steps(config)))


def _by_rate(run: Reliability) -> Table:
    """The closed form beside the simulation; both are given the same run."""
    rates = dict(sorted(RATES.items(), key=lambda item: item[1]))
    cases = {"this cluster": run.failures_per_node_day, **rates, f"RSC-1 x {PESSIMISTIC:g}": RATES["RSC-1"] * PESSIMISTIC}
    lines: list[tuple[str, ...]] = []
    for name, rate in cases.items():
        case = replace(run, failures_per_node_day=rate)
        ours, played = expected(case), simulate(case)
        simulated = f"{played.ettr:.2%} +- {played.ettr_error:.2%}"
        lines.append((name, f"{1000 * rate:.3g}", units.duration(case.mttf), f"{ours.failures:.1f}", f"{ours.ettr:.2%}", simulated))
    title = f"{run.nodes} nodes, a save each {units.duration(run.interval_seconds)}, {run.spare_nodes} spares"
    return title, ("rate", "per 1,000 node-days", "a failure each", "failures", "effective training time", "simulated, 400 runs"), lines


def _choice(head: tuple[str, ...], choice: Choice) -> tuple[str, ...]:
    lost = choice.expected.lost
    parts = (lost.total, lost.saves, lost.redone, lost.restarts + lost.queue, lost.spares)
    return (*head, f"{choice.expected.failures:.1f}", f"{choice.expected.ettr:.2%}", *(f"{hours:,.0f}" for hours in parts))


def _advice(config: RunConfig, run: Reliability, advice: Advice) -> Iterator[tuple[str, str, str]]:
    """What to type; the interval is that of the tier which a failure falls back to."""
    setting = "checkpoint.fast_interval" if config.checkpoint.fast_folder else "checkpoint.interval"
    saved = advice.chosen.expected.lost.total - advice.best.expected.lost.total
    best = f"{units.duration(advice.best.interval_seconds)}; with the spares below {saved:,.0f} GPU-hours less than as chosen"
    yield "interval", f"{setting}={_steps(config, run, advice.best)}", best
    least = min(choice.expected.lost.total for choice in advice.by_interval)
    nearly = (choice for choice in advice.by_interval if choice.expected.lost.total <= _NEARLY * least)
    lazy = max(nearly, key=lambda choice: choice.interval_seconds)
    more = f"{units.duration(lazy.interval_seconds)}; {lazy.expected.lost.total - least:,.0f} GPU-hours more, and so many fewer writes"
    yield "or, nearly as good", f"{setting}={_steps(config, run, lazy)}", more
    safe = f"{advice.safe_spare_nodes} cover 99 of 100 moments"
    yield "spares", f"slurm.spare_nodes={advice.best.spare_nodes}", f"fewest GPU-hours, idle spares included; {safe}"
    lead = advice.signal
    missed = f"missed, a preemption costs {lead.missed_gpu_hours:,.0f} GPU-hours instead of {lead.save_gpu_hours:,.0f}"
    yield "signal lead", f"slurm.signal_lead={lead.seconds}", f"a save begun at the signal is durable after {units.duration(lead.save_seconds)}; {missed}"


_NEARLY = 1.1
"""Losses that are no reason to write more often."""
