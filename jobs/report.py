"""`cpt report --run DIR [--sweep NAME]`: one self-contained report.html from what the stages left."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cpt.core.errors import EXIT_DONE
from cpt.core.paths import RunPaths


def main(overrides: Sequence[str]) -> int:
    """0 with the page written; stages that did not run are shown as such."""
    arguments = parse(overrides)
    from cpt.report.write import write_report

    print(f"report: {write_report(RunPaths(arguments.run.absolute()), arguments.sweep)}")
    return EXIT_DONE


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """A run directory is all it takes: the config is sealed in it."""
    parser = argparse.ArgumentParser(prog="cpt report", description=__doc__)
    parser.add_argument("--run", required=True, type=Path, metavar="DIR")
    parser.add_argument("--sweep", default="", metavar="NAME", help="default: the sweep that the run was launched with (chosen=NAME)")
    return parser.parse_args(list(arguments))
