"""`cpt status [RUN | SWEEP | RUNS] [--watch [SECONDS]] [--json] [--layers]`: what a run does, how far it is, what it cost; exits 0 fine, 1 degraded, 2 dead."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from cpt.core.errors import EXIT_DONE
from cpt.core.paths import RunPaths
from jobs.console import open_console
from jobs.status_answer import answer, locate, watch
from jobs.status_layers import layers_page


def main(arguments: Sequence[str]) -> int:
    """Reads files, the queue, and SLURM's accounts where it keeps some; changes nothing."""
    options = parse(arguments)
    folder = locate(options.run)
    if options.layers:
        open_console().print(layers_page(RunPaths(folder)))
        return EXIT_DONE
    if options.watch is not None:
        return watch(open_console(), lambda: answer(folder, accounts=False), options.watch)
    found = answer(folder)
    if options.json:
        print(json.dumps(found.values, indent=1))
    else:
        open_console().print(found.page)
    return found.exit_code


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Without a name: the runs below the run root, and the newest in full."""
    parser = argparse.ArgumentParser(prog="cpt status", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", nargs="?", default="", metavar="RUN", help="directory of a run, of a sweep, or of many runs; a name below runs/")
    parser.add_argument("--watch", nargs="?", type=float, const=10.0, metavar="SECONDS", help="ask again and again (default: every 10 s) until it is over")
    parser.add_argument("--json", action="store_true", help="the same for programs")
    parser.add_argument("--layers", action="store_true", help="of a run: what the last measured update did to each layer")
    return parser.parse_args(list(arguments))
