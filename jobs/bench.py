"""`cpt bench <name> [option=value] [overrides]`: measures one thing, prints a table with the command and the machine, and saves the same as JSON."""

from __future__ import annotations

import importlib
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from cpt.core.errors import Problem, UserError

BENCHES = {
    "launch": "jobs.launch_bench",
    "train": "cpt.bench.training",
    "checkpoint": "cpt.bench.checkpoint",
    "loaders": "cpt.bench.loading",
    "data": "cpt.bench.preparing",
    "recall": "cpt.bench.planted",
}
"""Name -> module with `OPTIONS` (name -> default, beside `save`) and `run(options, overrides, say) -> Figures`. Only the chosen one is imported."""


def main(arguments: Sequence[str]) -> int:
    """Measure, show, keep."""
    name, rest = (arguments[0] if arguments else ""), arguments[1:]
    if name not in BENCHES:
        why = "measures one thing by name"
        raise UserError(
            Problem(where="cpt bench", what=repr(name) if name else "no name", why=why, fix=", or ".join(f"cpt bench {known}" for known in BENCHES))
        )
    from cpt.bench.figures import machine, take_options
    from jobs.console import open_console

    bench = importlib.import_module(BENCHES[name])
    options, overrides = take_options({"save": f"runs/bench/{name}.json", **bench.OPTIONS}, rest)
    console = open_console()
    figures = bench.run(options, overrides, lambda line: console.print(f"{time.strftime('%H:%M:%S')}  {line}"))
    command = shlex.join(["cpt", "bench", *arguments])
    table = Table(*figures.columns, title=command, title_justify="left", box=None)
    for row in figures.rows:
        table.add_row(*row)
    console.print(table)
    file = options.pop("save")
    for line in [*figures.notes, *(", ".join(f"{name} {value}" for name, value in facts.items()) for facts in (options, machine()))]:
        console.print(line)
    figures.save(Path(file), command, options)
    console.print(f"saved as {file}")
    return 0
