"""Pictures of the one question of continued pretraining: how much domain, for how much forgetting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from cpt.core.records import SweepTable, TrialRow
from cpt.evaluate.forgetting import Comparison
from cpt.report.canvas import DOMAIN, GENERAL, GROUP_COLORS, INK, LINE, SOFT, Canvas

_FELL_OR_ROSE = LinearSegmentedColormap.from_list("fell_or_rose", ["#7cc492", "#ffffff", "#f0806f"])


def before_and_after(comparison: Comparison) -> bytes:
    """A dumbbell per source: hollow before, filled after."""
    changes = sorted(comparison.sources, key=lambda change: (change.group, -change.before))
    with Canvas(0.9 + 0.42 * len(changes)) as canvas:
        (axes,) = canvas.axes()
        for row, change in enumerate(changes):
            color = GROUP_COLORS.get(change.group, INK)
            axes.plot([change.before, change.after], [row, row], color=color, linewidth=2.4, alpha=0.55)
            axes.plot(change.before, row, "o", markersize=9, markerfacecolor="white", markeredgecolor=color, markeredgewidth=2)
            axes.plot(change.after, row, "o", markersize=9, color=color)
            right = max(change.before, change.after)
            axes.annotate(f"{change.delta:+.3f}", (right, row), xytext=(12, 0), textcoords="offset points", va="center", color=color, fontsize=10)
        axes.set_yticks(range(len(changes)), [f"{change.name}  ({change.group})" for change in changes])
        axes.set_ylim(len(changes) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("held-out loss, nats a token: hollow before, filled after; further left is better")
        return canvas.png()


def axes_of(table: SweepTable) -> list[str]:
    """The settings that differ between trials, those with most values first."""
    values = {key: {str(row.settings.get(key)) for row in table.rows if row.settings} for key in {key for row in table.rows for key in row.settings}}
    return sorted((key for key, seen in values.items() if len(seen) > 1), key=lambda key: (-len(values[key]), key))


def heat_map(table: SweepTable) -> bytes:
    """Domain and general held-out loss over the first two settings; over more, the best trial of a cell. Chosen: framed."""
    keys = axes_of(table)
    x, y = keys[0], keys[1] if len(keys) > 1 else ""
    with Canvas(3.3) as canvas:
        for axes, name in zip(canvas.axes(2), ("domain", "general"), strict=True):
            _heat_panel(axes, table, (x, y), name)
        return canvas.png()


def _heat_panel(axes: Axes, table: SweepTable, keys: tuple[str, str], name: str) -> None:
    rows = sorted((row for row in table.rows if _loss(row, name) is not None), key=lambda row: -(row.domain_loss or 0.0))
    xs, ys = (sorted({row.settings.get(key) for row in rows}, key=_order) for key in keys)
    cells = {(ys.index(row.settings.get(keys[1])), xs.index(row.settings.get(keys[0]))): row for row in rows}
    change = np.full((len(ys), len(xs)), np.nan)
    for place, row in cells.items():
        change[place] = _change(row, table, name)
    # Green fell, white stayed, red rose; full red at twice the allowed forgetting or more.
    span = max(2 * table.forgetting_limit, float(np.nanmax(np.abs(change))))
    axes.imshow(change, cmap=_FELL_OR_ROSE, aspect="auto", vmin=-span, vmax=span)
    for i, j in np.ndindex(change.shape):
        axes.text(j, i, _cell(cells.get((i, j)), table, name), ha="center", va="center", color=INK)
    _frame_chosen(axes, table, keys, (xs, ys))
    axes.set_xticks(range(len(xs)), [str(value) for value in xs])
    axes.set_yticks(range(len(ys)), [str(value) for value in ys] if keys[1] else [""])
    axes.set_xlabel(keys[0])
    axes.set_ylabel(keys[1])
    axes.grid(visible=False)
    axes.set_title(f"{name} loss and its change" + (", worst source" if name == "general" else ""))


def _change(row: TrialRow, table: SweepTable, name: str) -> float:
    """What colors a cell: the change from the base, on the general side that of the source that lost most; 0 when unknown."""
    if name == "general" and row.forgotten:
        return row.forgotten[1]
    loss, base = _loss(row, name), table.base_domain_loss if name == "domain" else table.base_general_loss
    return 0.0 if loss is None or base is None else loss - base


def _cell(row: TrialRow | None, table: SweepTable, name: str) -> str:
    loss, base = (_loss(row, name) if row else None), table.base_domain_loss if name == "domain" else table.base_general_loss
    if row is None or loss is None:
        return "failed"
    lines = [f"{loss:.3f}" + ("" if base is None else f" ({loss - base:+.3f})")]
    if name == "general" and row.forgotten:
        lines.append(f"{row.forgotten[0]} {row.forgotten[1]:+.3f}")
    return "\n".join(lines)


def _frame_chosen(axes: Axes, table: SweepTable, keys: tuple[str, str], values: tuple[list[object], list[object]]) -> None:
    from matplotlib.patches import Rectangle

    for row in table.rows:
        if row.index == table.chosen:
            j, i = values[0].index(row.settings.get(keys[0])), values[1].index(row.settings.get(keys[1]))
            axes.add_patch(Rectangle((j - 0.49, i - 0.48), 0.98, 0.96, fill=False, edgecolor=INK, linewidth=2.5))


def _order(value: object) -> tuple[bool, float, str]:
    return (False, float(value), "") if isinstance(value, int | float) else (True, 0.0, str(value))


def _loss(row: TrialRow, name: str) -> float | None:
    return row.domain_loss if name == "domain" else row.general_loss


def scatter(table: SweepTable | None, run: tuple[float, float] | None, limit: float) -> bytes:
    """Domain gain (up) against forgetting (right): the base is the origin, the limit a line, upper left is best. `run`: (forgetting, gain)."""
    with Canvas(4.0) as canvas:
        (axes,) = canvas.axes()
        axes.axhline(0, color=LINE, linewidth=1.2)
        axes.axvline(0, color=LINE, linewidth=1.2)
        axes.axvline(limit, color=DOMAIN, linestyle="--", linewidth=1.2)
        axes.annotate(f" limit {limit:g}", (limit, 0.02), xycoords=("data", "axes fraction"), color=DOMAIN, fontsize=9)
        _point(axes, 0, 0, "base", {"marker": "s", "color": SOFT})
        for x, y, label, chosen in _trials(table):
            _point(axes, x, y, label, {"marker": "o", "color": INK if chosen else GENERAL, "markersize": 9 if chosen else 7})
        if run:
            _point(axes, *run, "this run", {"marker": "*", "color": DOMAIN, "markersize": 17})
        axes.set_xlabel("forgetting: rise of the general source that lost most, nats a token")
        axes.set_ylabel("gain: fall of domain held-out loss")
        axes.margins(x=0.18, y=0.15)
        return canvas.png()


def _trials(table: SweepTable | None) -> Sequence[tuple[float, float, str, bool]]:
    if table is None or table.base_domain_loss is None:
        return []
    keys, found = axes_of(table), []
    for row in table.rows:
        if row.domain_loss is not None and row.forgotten:
            label = ", ".join(f"{key.rpartition('.')[2]} {row.settings.get(key)}" for key in keys)
            chosen = row.index == table.chosen
            found.append((row.forgotten[1], table.base_domain_loss - row.domain_loss, label + (" (chosen)" if chosen else ""), chosen))
    return found


def _point(axes: Axes, x: float, y: float, label: str, style: dict[str, object]) -> None:
    axes.plot([x], [y], linestyle="", zorder=5, **style)  # type: ignore[arg-type]
    axes.annotate(
        label,
        (x, y),
        xytext=(9, 5),
        textcoords="offset points",
        fontsize=9,
        color=SOFT,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
    )


def mixture_bars(planned: dict[str, float], consumed: dict[str, float], groups: dict[str, str]) -> bytes:
    """Share of all tokens per source: outlined as planned, filled as read."""
    names = list(planned)
    with Canvas(0.9 + 0.4 * len(names)) as canvas:
        (axes,) = canvas.axes()
        for row, name in enumerate(names):
            color = GROUP_COLORS.get(groups.get(name, ""), INK)
            axes.barh(row, 100 * consumed.get(name, 0.0), height=0.5, color=color, alpha=0.65)
            axes.barh(row, 100 * planned[name], height=0.68, fill=False, edgecolor=color, linewidth=1.6)
            axes.annotate(
                f"{100 * consumed.get(name, 0.0):.1f}%",
                (100 * max(planned[name], consumed.get(name, 0.0)), row),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
        axes.set_xlabel("share of tokens, percent: outline planned, filled read")
        return canvas.png()
