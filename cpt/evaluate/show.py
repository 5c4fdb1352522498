"""A comparison for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from cpt.evaluate.forgetting import Comparison


def as_tables(comparison: Comparison) -> Iterator[Table]:
    """Held-out losses, then benchmarks; groups behind their members."""
    losses = _table("held-out loss, nats a token", "source", "group", "before", "after", "change", "bits/byte")
    for change in [*comparison.sources, *comparison.groups]:
        name = f"= {change.name}" if change in comparison.groups else change.name
        bits = f"{change.bits_before:.3f} -> {change.bits_after:.3f}"
        losses.add_row(name, change.group, f"{change.before:.4f}", f"{change.after:.4f}", f"{change.delta:+.4f}", bits)
    yield losses
    if not comparison.benchmarks:
        return
    scores = _table("benchmarks, accuracy in percent", "benchmark", "before", "after", "change", "lost", "won", "items", "")
    for score in comparison.benchmarks:
        change_text = _percent(score.delta, score.standard_error)
        flips = (str(score.forgotten), str(score.gained), str(score.items))
        scores.add_row(f"{score.name} ({score.group})", f"{100 * score.before:.1f}", f"{100 * score.after:.1f}", change_text, *flips, score.verdict)
    for macro in comparison.macros:
        scores.add_row(f"= {macro.group}", "", "", _percent(macro.delta, macro.standard_error), "", "", "", "")
    yield scores


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, justify="left" if column in ("source", "benchmark", "group", "") else "right")
    return table


def _percent(delta: float, error: float) -> str:
    return f"{100 * delta:+.1f} ± {100 * error:.1f}"
