"""A sweep's table for a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from cpt.core.records import SweepTable, TrialRow


def as_table(table: SweepTable) -> Table:
    """Trials by domain loss, the base first, the chosen one marked."""
    keys = sorted({key for row in table.rows for key in row.settings})
    shown = Table(title=f"sweep {table.name}: held-out loss, nats a token", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("trial", *(key.rpartition(".")[2] for key in keys), "state", "domain", "general", "worst source"):
        shown.add_column(name, no_wrap=True, justify="left" if name in ("trial", "state") else "right")
    shown.add_row("base", *[""] * (len(keys) + 1), _loss(table.base_domain_loss), _loss(table.base_general_loss), "")
    for row in sorted(table.rows, key=lambda row: (row.domain_loss is None, row.domain_loss or 0.0, row.index)):
        shown.add_row(*_cells(row, table, keys))
    return shown


def _cells(row: TrialRow, table: SweepTable, keys: list[str]) -> list[str]:
    rise = f"{row.forgotten[0]} {row.forgotten[1]:+.4f}" if row.forgotten else ""
    name = f"{row.index:03d}{' *' if row.index == table.chosen else ''}"
    return [name, *(str(row.settings.get(key, "")) for key in keys), row.state, _loss(row.domain_loss), _loss(row.general_loss), rise]


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
