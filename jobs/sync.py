"""`cpt sync DIR... [--follow]`: copy journals to MLflow. DIR is a run, a sweep or the run root."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cpt.core.errors import EXIT_DONE, EXIT_OURS


def main(overrides: Sequence[str]) -> int:
    """0 when every journaled row is in MLflow, 1 when a server was not there; a later sync brings what is missing."""
    arguments = parse(overrides)
    from cpt.tracking.sync import follow, sync
    from jobs.console import open_console

    console = open_console()
    passes = follow(arguments.folders, arguments.seconds) if arguments.follow else [sync(arguments.folders)]
    code = EXIT_DONE
    for results in passes:
        code = EXIT_OURS if any(result.error for result in results) else EXIT_DONE
        for result in results:
            if result.error:
                console.print(f"sync {result.run.name}: nothing sent ({result.error}); the journal is kept, run `cpt sync {result.run}` later")
            elif result.rows or not arguments.follow:
                console.print(f"sync {result.run.name}: {result.rows} rows, {result.status}")
        if not results:
            console.print("sync: tracking.enabled is false, nothing to do")
    return code


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Folders are not overrides: this verb works on what other verbs left."""
    parser = argparse.ArgumentParser(prog="cpt sync", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--follow", action="store_true", help="keep copying until every run has ended")
    parser.add_argument("--seconds", type=float, default=5.0, help="between two passes of --follow")
    return parser.parse_args(list(arguments))
