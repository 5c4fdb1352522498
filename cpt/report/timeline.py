"""The run on the wall clock: which minutes made progress, which were lost, which repeated, which waited."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cpt.core.attempts import DrillRecord
from cpt.report.attempts import Attempt, restarts
from cpt.report.canvas import AGAIN, GOOD, INK, LOST, SOFT, Canvas

STARTING, ENDING = "#b9c6d6", "#dde3ea"
_LEGEND = (("start-up", STARTING), ("training", GOOD), ("lost with the attempt", LOST), ("computed again", AGAIN), ("ending", ENDING))


def timeline(attempts: list[Attempt], drill: DrillRecord | None) -> bytes:
    """Steps over time above, one bar per attempt below; both in minutes (or hours) since the first attempt began."""
    origin = attempts[0].begin
    unit, name = (3600.0, "hours") if attempts[-1].end - origin > 7200 else (60.0, "minutes")
    with Canvas(3.4 + 0.28 * min(len(attempts), 12)) as canvas:
        above, below = canvas.figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.6 + 0.35 * min(len(attempts), 12)])
        reached = 0
        for row, attempt in enumerate(attempts):
            _steps(above, attempt, origin, unit)
            _bar(below, row, _phases(attempt, reached), (origin, unit))
            reached = max(reached, attempt.last_step)
        _gaps(above, attempts, origin, unit)
        if drill:
            _mark(above, drill, (drill.time - origin) / unit)
        above.set_ylabel("step")
        above.yaxis.set_major_locator(MaxNLocator(integer=True))
        above.legend(handles=[Patch(color=color, label=label) for label, color in _LEGEND], ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        below.set_yticks(range(len(attempts)), [f"attempt {attempt.number}" for attempt in attempts])
        below.invert_yaxis()
        below.grid(axis="y", visible=False)
        below.set_xlabel(f"{name} since the first attempt began")
        return canvas.png()


Phase = tuple[float, float, str]
"""(begin, end, color)."""


def _phases(attempt: Attempt, reached: int) -> list[Phase]:
    """`reached` is the highest step of the attempts before: up to it, this one repeats."""
    if not attempt.steps:
        return [(attempt.begin, attempt.end, STARTING)]
    first = attempt.steps[0][0] - attempt.step_seconds[0]
    again = max([time for time, step in attempt.steps if step <= reached], default=first)
    phases = [(attempt.begin, first, STARTING), (first, again, AGAIN), (again, attempt.lost_from, GOOD)]
    phases += [(attempt.lost_from, attempt.last_word, LOST), (attempt.last_word, attempt.end, ENDING)]
    return [phase for phase in phases if phase[1] > phase[0]]


def _bar(axes: Axes, row: int, phases: list[Phase], scale: tuple[float, float]) -> None:
    origin, unit = scale
    for begin, end, color in phases:
        axes.barh(row, (end - begin) / unit, left=(begin - origin) / unit, height=0.62, color=color)


def _steps(axes: Axes, attempt: Attempt, origin: float, unit: float) -> None:
    points = [((time - origin) / unit, step) for time, step in attempt.steps]
    kept = [point for point in points if point[1] <= attempt.kept_step]
    lost = [*kept[-1:], *(point for point in points if point[1] > attempt.kept_step)]
    axes.plot([x for x, _ in kept], [y for _, y in kept], color=INK, marker="." if len(points) < 200 else "", markersize=4)
    if attempt.lost_steps:
        axes.plot([x for x, _ in lost], [y for _, y in lost], color=LOST, marker=".", markersize=4)
        axes.axvspan((attempt.lost_from - origin) / unit, (attempt.last_word - origin) / unit, color=LOST, alpha=0.12, linewidth=0)


def _mark(axes: Axes, drill: DrillRecord, x: float) -> None:
    """When something was taken away on purpose."""
    axes.axvline(x, color=LOST, linewidth=1.6)
    axes.annotate(f"{drill.what} ", (x, 0.9), xycoords=("data", "axes fraction"), ha="right", fontsize=9, color=LOST)


def _gaps(axes: Axes, attempts: list[Attempt], origin: float, unit: float) -> None:
    """Gray: from the last step to the next attempt's first, with the path it took."""
    for restart in restarts(attempts):
        before, after = restart.before, restart.after
        since, until = restart.since or before.last_word, after.first_step_time or after.end
        begin, end = (since - origin) / unit, (until - origin) / unit
        axes.axvspan(begin, end, color=SOFT, alpha=0.10, linewidth=0)
        axes.annotate(
            f"{before.ending}, {after.path or '?'}: {until - since:.0f} s",
            ((begin + end) / 2, 0.04),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=8,
            color=SOFT,
        )
