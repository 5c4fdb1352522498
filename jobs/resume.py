"""`cpt resume RUN [key=value ...] [--check] [--accept-changed-data]`: what the next attempt starts from, what changes from there on, and its submission."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cpt.core.errors import EXIT_DONE, UserError
from cpt.core.paths import RunPaths
from jobs import launch
from jobs.console import open_console
from jobs.resume_amend import propose, require_idle, write
from jobs.resume_check import examine
from jobs.resume_page import page
from jobs.status_answer import locate


def main(arguments: Sequence[str]) -> int:
    """2 with every reason not to go on; else 0, or what `cpt launch --run` returns."""
    options, overrides = parse(arguments)
    run = RunPaths(locate(options.run))
    stands = examine(run)
    amends = bool(overrides) or options.accept_changed_data
    if amends:
        require_idle(run)
    found = propose(stands, overrides, options.accept_changed_data) if amends else stands
    open_console().print(page(found))
    if found.problems:
        raise UserError(found.problems)
    if options.check:
        return EXIT_DONE
    if found is not stands:
        write(found)
    return launch.main(["--run", str(run.root)])


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """A run directory, or its name below runs/; and the settings that change."""
    parser = argparse.ArgumentParser(prog="cpt resume", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--check", action="store_true", help="only show; writes nothing, submits nothing")
    parser.add_argument("--accept-changed-data", action="store_true", help="go on with other tokens than the checkpoint was trained on")
    return parser.parse_known_args(list(arguments))
