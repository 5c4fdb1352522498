"""The planner against published figures as a picture: predicted step times beside measured ones, and the error of every check."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from cpt.plan.validate import Check
from cpt.report.canvas import DOMAIN, GENERAL, GOOD, INK, LINE, LOST, SOFT, Canvas

_LIMIT = 0.45
"""Errors beyond are drawn at the edge."""


def validation_picture(checks: Sequence[Check]) -> bytes:
    """A PNG: on the left step times on two log axes, on the right errors by kind, tolerances as bars."""
    with Canvas(4.6) as canvas:
        left, right = canvas.axes(2)
        _steps(left, [check for check in checks if check.kind == "step"])
        _errors(right, checks)
        return canvas.png()


def _steps(axes: Axes, checks: Sequence[Check]) -> None:
    """Fitted rows as rings: they are on the line by construction."""
    low, high = 0.7 * min(check.published for check in checks), 1.4 * max(check.published for check in checks)
    ends = [low, high]
    axes.fill_between(ends, [0.85 * end for end in ends], [1.15 * end for end in ends], color=LINE, linewidth=0, label="within 15%")
    axes.plot(ends, ends, color=SOFT, linewidth=0.8)
    kinds = (
        ("predicted", DOMAIN, DOMAIN, [check for check in checks if not check.calibrates and not check.outside]),
        ("fitted: one row a precision", "white", GENERAL, [check for check in checks if check.calibrates]),
        ("known not to come out", "white", LOST, [check for check in checks if check.outside]),
    )
    for label, face, edge, some in kinds:
        axes.scatter(
            [check.published for check in some], [check.ours for check in some], s=26, facecolor=face, edgecolor=edge, linewidth=1.1, label=label, zorder=3
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=ends,
        ylim=ends,
        xlabel="published, seconds a step",
        ylabel="ours",
        title=f"Step times of {len(checks)} published layouts",
    )
    ticks = [2, 5, 10, 20, 50]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.set_minor_locator(NullLocator())
    axes.legend(loc="upper left")


def _errors(axes: Axes, checks: Sequence[Check]) -> None:
    """One line a kind; a figure a dot."""
    kinds = list(dict.fromkeys(check.kind for check in checks))[::-1]
    for height, kind in enumerate(kinds):
        some = [check for check in checks if check.kind == kind]
        tolerance = max(check.tolerance for check in some)
        axes.barh(height, 2 * tolerance, left=-tolerance, height=0.62, color=LINE)
        errors = [max(-_LIMIT, min(_LIMIT, check.error)) for check in some]
        lanes = [height + 0.2 * ((index % 5) - 2) / 2 for index in range(len(some))]
        axes.scatter(errors, lanes, s=9, color=[LOST if check.outside else GOOD if check.holds else INK for check in some], zorder=3, linewidth=0)
    axes.axvline(0, color=SOFT, linewidth=0.8)
    axes.set_yticks(range(len(kinds)), [f"{kind} ({sum(check.kind == kind for check in checks)})" for kind in kinds])
    axes.set(xlim=(-_LIMIT - 0.02, _LIMIT + 0.02), title="Error of every figure; bars: what is allowed")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="y", visible=False)
