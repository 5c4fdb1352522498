"""`cpt evaluate --run DIR`: held-out loss and benchmarks of the base and of the last checkpoint, item by item."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cpt.core.errors import EXIT_DONE
from cpt.core.paths import RunPaths


def main(overrides: Sequence[str]) -> int:
    """0 with both evaluations saved."""
    run = RunPaths(parse(overrides).run.absolute())
    from cpt.evaluate.run import evaluate_both
    from cpt.evaluate.show import as_tables
    from jobs.console import open_console

    console = open_console()
    comparison = evaluate_both(run, lambda line: console.print(line))
    for table in as_tables(comparison):
        console.print(table)
    return EXIT_DONE


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """A run directory is all it takes: the config is sealed in it."""
    parser = argparse.ArgumentParser(prog="cpt evaluate", description=__doc__)
    parser.add_argument("--run", required=True, type=Path, metavar="DIR")
    return parser.parse_args(list(arguments))
