"""What failures cost a run, by interval between saves and by spare nodes: the closed form as lines and bars, the simulation as points on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from cpt.core import units
from cpt.plan.reliability import PESSIMISTIC, RATES, Advice, Choice, Lost, Reliability, best_interval, expected
from cpt.plan.simulate import simulate
from cpt.report.canvas import AGAIN, GENERAL, GOOD, INK, LINE, LOST, SOFT, Canvas

CURVES = RATES | {f"RSC-1 x {PESSIMISTIC}": PESSIMISTIC * RATES["RSC-1"]}
"""Name -> failures per node-day."""
OWN = "this run"
_COLORS = (GOOD, GENERAL, AGAIN, LOST, "#7a6bc4", SOFT)
_KINDS = {"saves": ("saving", GENERAL), "redone": ("computed again", AGAIN), "restarts": ("restarting", LOST), "queue": ("in the queue", INK)}
_KINDS |= {"spares": ("idle spares", "#b9c6d6")}
_SPAN = 12.0
"""Curves reach from the best interval over this to it times this."""
_REACH = 3.0
"""MTTFs between saves, with a restart, at which a curve ends."""
_MOST_FAILURES = 3_000
"""In a run; points beyond would take many seconds."""
_POINTS, _LINE_POINTS = 7, 81
_TICKS = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 4 * 3600, 8 * 3600, 86_400, 2 * 86_400, 4 * 86_400)


def reliability_picture(run: Reliability, advice: Advice, rates: Mapping[str, float] = CURVES, runs: int = 300) -> bytes:
    """Above, a curve a failure rate, and the run's own where it is another; below, the run's cost by kind. PNG; `runs` simulated for each point."""
    named = dict(rates) if any(_same(rate, run.failures_per_node_day) for rate in rates.values()) else {**rates, OWN: run.failures_per_node_day}
    with Canvas(7.4) as canvas:
        grid = canvas.figure.add_gridspec(2, 1, height_ratios=[1.4, 1])
        top, bottom = canvas.figure.add_subfigure(grid[0]), canvas.figure.add_subfigure(grid[1])
        _curves(top.add_subplot(), run, named, runs)
        left, right = bottom.add_subplot(1, 2, 1), bottom.add_subplot(1, 2, 2)
        _by_interval(left, run, advice)
        _by_spares(right, advice)
        handles, labels = right.get_legend_handles_labels()
        bottom.legend(handles, labels, loc="outside lower center", ncols=len(_KINDS))
        return canvas.png()


def _curves(axes: Axes, run: Reliability, rates: Mapping[str, float], runs: int) -> None:
    longest = min(max(best_interval(run) * _SPAN, 1.5 * run.interval_seconds), run.work_seconds)
    shortest = min(max(min(best_interval(run) / _SPAN, run.interval_seconds / 1.5), run.lag_seconds), longest / 2)
    for (name, rate), color in zip(rates.items(), _COLORS, strict=False):
        one, own = replace(run, failures_per_node_day=rate), _same(rate, run.failures_per_node_day)
        end = min(longest, _REACH * one.mttf - one.restart_seconds)
        text, style = f"{name}: {1000 * rate:.3g}{f', {OWN}' if own and name != OWN else ''}", (color, 2.6 if own else 1.4)
        if end > 1.2 * shortest:
            _curve(axes, one, (shortest, end), style, runs)
            _label(axes, one, end, text, style)
        else:
            axes.plot([], [], color=color, label=f"{text}: fails faster than it saves")
    axes.axvline(run.interval_seconds, color=INK, linestyle="--", linewidth=1.2, zorder=1)
    place, text = (run.interval_seconds, 0.03), f"chosen: {_short(run.interval_seconds)}"
    axes.annotate(text, place, xycoords=("data", "axes fraction"), xytext=(5, 0), textcoords="offset points", fontsize=9)
    _decorate(axes, run, (shortest, longest))


def _curve(axes: Axes, run: Reliability, ends: tuple[float, float], style: tuple[str, float], runs: int) -> None:
    """A line, simulated points on it, and a ring at its lowest."""
    color, width = style
    intervals = _spread(*ends, _LINE_POINTS)
    axes.plot(intervals, [_lost_time(replace(run, interval_seconds=interval)) for interval in intervals], color=color, linewidth=width, zorder=2)
    _simulated(axes, run, _spread(*ends, _POINTS), color, runs)
    best = replace(run, interval_seconds=best_interval(run))
    axes.plot(best.interval_seconds, _lost_time(best), "o", markersize=9, markerfacecolor="white", markeredgecolor=color, markeredgewidth=2, zorder=4)


def _label(axes: Axes, run: Reliability, end: float, text: str, style: tuple[str, float]) -> None:
    best = replace(run, interval_seconds=best_interval(run))
    text = f"{text}\n{_short(best.interval_seconds)}, {_lost_time(best) / run.gpu_hours(run.work_seconds):.1%}"
    place = (end, _lost_time(replace(run, interval_seconds=end)))
    label = axes.annotate(text, place, xytext=(9, 0), textcoords="offset points", va="center", annotation_clip=False)
    label.set(color=style[0], fontsize=8.5, fontweight="bold" if style[1] > 2 else "normal")


def _simulated(axes: Axes, run: Reliability, intervals: Sequence[float], color: str, runs: int) -> None:
    """Bars of two standard errors."""
    heights, errors = [], []
    intervals = [interval for interval in intervals if expected(replace(run, interval_seconds=interval)).failures < _MOST_FAILURES]
    for seed, interval in enumerate(intervals):
        found = simulate(replace(run, interval_seconds=interval), runs, seed)
        heights.append(found.lost.total - found.lost.spares)
        errors.append(2 * run.gpu_hours(run.work_seconds * found.ettr_error / found.ettr**2))
    axes.errorbar(intervals, heights, yerr=errors, fmt="o", markersize=3.5, color=color, ecolor=color, elinewidth=1.2, capsize=3, zorder=3)


def _lost_time(run: Reliability) -> float:
    lost = expected(run).lost
    return lost.total - lost.spares


def _decorate(axes: Axes, run: Reliability, ends: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(ends[0] / 1.1, ends[1] * 1.1)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.4, 1.7 * high)
    ticks = [tick for tick in _TICKS if ends[0] <= tick <= ends[1]]
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="minor", axis="y", color=LINE, linewidth=0.4)
    axes.set_xlabel("training between two saves")
    axes.set_ylabel("GPU-hours lost, idle spares aside")
    axes.set_title(f"lost to saves and failures: {run.nodes:,} nodes, {_short(run.work_seconds)} of training, {_spares(run)}")
    caption = "failures per 1,000 node-days,\nbest interval, training lost there"
    axes.annotate(caption, (1.0, 1.0), xycoords="axes fraction", xytext=(-4, 4), textcoords="offset points", fontsize=8.5, color=SOFT, annotation_clip=False)
    ring = Line2D([], [], marker="o", linestyle="", markersize=8, mfc="white", mec=SOFT, mew=2, label="best interval")
    line = Line2D([], [], color=SOFT, label="closed form")
    dot = Line2D([], [], marker="o", linestyle="", markersize=3.5, color=SOFT, label="simulated, two standard errors")
    axes.legend(
        handles=[ring, line, dot, *axes.get_legend_handles_labels()[0]],
        loc="upper left",
        fontsize=8.5,
        ncols=3,
        frameon=True,
        facecolor="white",
        edgecolor="white",
        framealpha=1,
    )


def _by_interval(axes: Axes, run: Reliability, advice: Advice) -> None:
    names = [f"{choice.interval_seconds / advice.best.interval_seconds:.3g}x\n{_short(choice.interval_seconds)}" for choice in advice.by_interval]
    best = min(range(len(names)), key=lambda place: advice.by_interval[place].expected.lost.total)
    rows = list(advice.by_interval)
    if not any(_same(one.interval_seconds, run.interval_seconds) for one in rows):
        rows, names = [*rows, advice.chosen], [*names, f"chosen\n{_short(run.interval_seconds)}"]
    _bars(axes, rows, names, best)
    axes.set_xlabel("interval, as a multiple of the best")
    axes.set_ylabel("GPU-hours lost")
    axes.set_title(f"by interval, {_spares(run)}")


def _by_spares(axes: Axes, advice: Advice) -> None:
    _bars(axes, advice.by_spares, [str(choice.spare_nodes) for choice in advice.by_spares], advice.best.spare_nodes)
    axes.set_xlabel(f"spare nodes; {advice.safe_spare_nodes} cover 99 of 100 moments")
    axes.set_title("by spares, at the best interval")


def _bars(axes: Axes, choices: Sequence[Choice], names: Sequence[str], best: int) -> None:
    bottom = [0.0] * len(choices)
    for kind in (field.name for field in fields(Lost)):
        label, color = _KINDS[kind]
        heights = [getattr(choice.expected.lost, kind) for choice in choices]
        axes.bar(range(len(choices)), heights, bottom=bottom, width=0.68, color=color, label=label)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    for place, height in enumerate(bottom):
        weight = "bold" if place == best else "normal"
        axes.annotate(
            units.count(height).replace(" ", ""),
            (place, height),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=INK,
            fontweight=weight,
        )
    axes.set_xticks(range(len(choices)), list(names), fontsize=8.5)
    axes.get_xticklabels()[best].set_fontweight("bold")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(value)))
    axes.set_ylim(0, 1.12 * max(bottom))
    axes.grid(axis="x", visible=False)


def _same(one: float, other: float) -> bool:
    return abs(one / other - 1) < 1e-3


def _spares(run: Reliability) -> str:
    return f"{run.spare_nodes or 'no'} spare{'s' if run.spare_nodes != 1 else ''}"


def _short(seconds: float) -> str:
    """Its two largest units, without zeros and needless seconds: `1h 11m`, `30d`, `57m`."""
    seconds = 60 * round(seconds / 60) if seconds >= 600 else seconds
    return " ".join(part for part in units.duration(seconds).split()[:2] if not part.startswith("0"))


def _spread(first: float, last: float, number: int) -> list[float]:
    return [first * (last / first) ** (place / (number - 1)) for place in range(number)]
