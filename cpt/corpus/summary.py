"""A manifest as a table for people."""

from __future__ import annotations

from rich.table import Table

from cpt.core.records import DataManifest
from cpt.core.units import count


def manifest_table(manifest: DataManifest) -> Table:
    """One row per source: documents read, dropped by reason, train and held-out documents, tokens."""
    table = Table(title=f"corpus {manifest.corpus}", title_justify="left")
    table.add_column("source", no_wrap=True)
    table.add_column("group")
    table.add_column("lang")
    for name in ("read", "train", "held out", "tokens", "held-out tokens"):
        table.add_column(name, justify="right")
    table.add_column("dropped")
    for source in manifest.sources:
        numbers = (source.documents_read, source.train.documents, source.heldout.documents)
        dropped = ", ".join(f"{number} {reason}" for reason, number in sorted(source.dropped.items())) or "-"
        tokens = (count(source.train.tokens), count(source.heldout.tokens))
        table.add_row(source.name, source.group, source.language, *map(str, numbers), *tokens, dropped)
    return table
