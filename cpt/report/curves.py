"""Pictures over steps: loss, learning rate, gradient norm, throughput."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cpt.report.canvas import GENERAL, GOOD, GROUP_COLORS, INK, LOST, SOFT, Canvas, source_colors, thin
from cpt.report.facts import Facts
from cpt.tracking.journal import anomalies


def train_loss(facts: Facts) -> bytes:
    """Loss of the whole batch, and by source: a source appears at the steps that read it."""
    colors = source_colors(facts.groups)
    with Canvas(4.2) as canvas:
        (axes,) = canvas.axes()
        for name, color in colors.items():
            points = facts.series(f"train/loss/{name}")
            if points:
                rare = len(points) < facts.config.train.steps / 3  # a line over long gaps would claim what nobody measured
                axes.plot(
                    *thin(points), color=color, alpha=0.75, linewidth=1.1, linestyle="" if rare else "-", marker="o" if rare else "", markersize=4, label=name
                )
        axes.plot(*thin(facts.series("train/loss")), color=INK, linewidth=2.2, label="whole batch")
        if steps := [event.fields["step"] for event in anomalies(facts.events)]:
            axes.plot(steps, [0.99] * len(steps), "v", color=LOST, markersize=7, transform=axes.get_xaxis_transform(), label="stood out")
        _over_steps(axes, facts, "loss, nats a token")
        axes.legend(ncols=min(6, len(colors) + 2), loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return canvas.png()


def heldout_loss(facts: Facts) -> bytes:
    """Domain and general means in full strength, sources thin behind them."""
    colors = source_colors(facts.groups)
    with Canvas(4.0) as canvas:
        panels = canvas.axes(2)
        for axes, group in zip(panels, GROUP_COLORS, strict=True):
            for name in (name for name, own in facts.groups.items() if own == group):
                axes.plot(*thin(facts.series(f"heldout/loss/{name}")), color=colors[name], linewidth=1, alpha=0.7, marker=".", label=name)
            mean = facts.series(f"heldout/loss/{group}")
            axes.plot(*thin(mean), color=GROUP_COLORS[group], linewidth=2.6, marker="o", markersize=4, label=f"{group} mean")
            axes.set_title(f"{group}: held-out loss")
            _over_steps(axes, facts, "nats a token")
            axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))
        return canvas.png()


def optimizer(facts: Facts) -> bytes:
    """Learning rate and gradient norm."""
    with Canvas(2.9) as canvas:
        left, right = canvas.axes(2)
        left.plot(*thin(facts.series("train/lr")), color=GENERAL)
        left.set_title("learning rate")
        left.yaxis.set_major_formatter("{x:.1e}")
        left.set_ylim(bottom=0)
        right.plot(*thin(facts.series("train/grad_norm")), color=GENERAL)
        right.axhline(facts.config.optimizer.clip_grad, color=SOFT, linestyle="--", linewidth=1)
        right.annotate(
            "clipped above ", (1, facts.config.optimizer.clip_grad), xycoords=("axes fraction", "data"), color=SOFT, fontsize=8, ha="right", va="bottom"
        )
        right.set_title("gradient norm")
        right.set_ylim(0, 1.15 * max([facts.config.optimizer.clip_grad, *(value for _, value in facts.series("train/grad_norm"))]))
        for axes in (left, right):
            _over_steps(axes, facts, "")
        return canvas.png()


def throughput(facts: Facts) -> bytes:
    """Tokens a second at every step, those of lost steps hollow, and what the plan said."""
    with Canvas(2.9) as canvas:
        (axes,) = canvas.axes()
        points = facts.series("train/tokens_per_second")
        axes.plot(*thin(points), color=GOOD, marker="." if len(points) < 200 else "")
        again = facts.series("train/tokens_per_second", superseded=True)
        if again:
            axes.plot(*thin(again), color=SOFT, linestyle="", marker="o", markerfacecolor="white", markersize=5, label="lost and computed again")
        levels = [("median", median([value for _, value in points]), GOOD)]
        if facts.plan and facts.plan.step_seconds > 0:
            levels.append(("plan", facts.plan.tokens_per_step / facts.plan.step_seconds, INK))
        for label, value, color in levels:
            axes.axhline(value, color=color, linestyle="--", linewidth=1, label=f"{label}: {value:,.0f}")
        _over_steps(axes, facts, "tokens a second")
        axes.set_ylim(0, 1.18 * max([value for _, value in points] + [value for _, value, _ in levels]))
        axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return canvas.png()


def _over_steps(axes: Axes, facts: Facts, label: str) -> None:
    """Steps on x, and a mark where a later attempt went on."""
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for attempt in facts.attempts[1:]:
        axes.axvline(attempt.resume_step, color=SOFT, linestyle=":", linewidth=1.2)
        axes.annotate(f" attempt {attempt.number}", (attempt.resume_step, 1), xycoords=("data", "axes fraction"), color=SOFT, fontsize=8, va="top")


def has(facts: Facts, names: Sequence[str]) -> bool:
    """Whether anything was journaled under one of the names."""
    return any(name in row.values for row in facts.rows for name in names)
