"""`cpt why RUN [--attempt N]`: what failed last, which rank on which node first, and what was done about it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cpt.core.errors import EXIT_DONE
from cpt.core.paths import RunPaths
from jobs.console import open_console
from jobs.status_answer import locate
from jobs.status_facts import look
from jobs.why_page import explain


def main(arguments: Sequence[str]) -> int:
    """Reads files and the queue; changes nothing."""
    options = parse(arguments)
    console = open_console()
    for line in explain(look(RunPaths(locate(options.run))), options.attempt):
        console.print(line)
    return EXIT_DONE


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """A run directory, or its name below runs/."""
    parser = argparse.ArgumentParser(prog="cpt why", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--attempt", type=int, metavar="N", help="default: the last one that failed")
    return parser.parse_args(list(arguments))
