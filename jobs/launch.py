"""`cpt launch [overrides] | --run DIR [--dry-run]`: write the run directory and submit it; the same run again is found, not repeated."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cpt.config.compose import compose_config
from cpt.config.fingerprint import fingerprint
from cpt.config.seal import read_config, to_yaml
from cpt.core.paths import RunPaths
from cpt.plan.budget import require_budget
from jobs.console import open_console
from jobs.run_directory import prepare
from slurm import submit
from slurm.script import Origin, render


def main(overrides: Sequence[str]) -> int:
    """Compose, check, write, submit, say how to follow."""
    options, rest = parse(overrides)
    console = open_console()
    given = RunPaths(options.run.absolute()) if options.run else None
    config = read_config(given.config) if given else compose_config(rest)
    run = given or config.runs.run(config.name, fingerprint(config))
    if options.dry_run:
        console.print(f"{render(config, run, Origin(), hint=submit.compact(config))}\n# ---- {run.config}\n{to_yaml(config)}")
        return 0
    if not run.config.is_file():
        prepared = prepare(config)
        if not options.over_budget:
            require_budget(config, prepared.plan)
        submit.require(config)
        prepared.write(run, submit.compact(config))
    sealed = read_config(run.config)
    for line in submit.differences(sealed, config):
        console.print(f"note: {line}")
    if submit.is_done(run):
        console.print(f"{run.root} is finished; cpt status {run.root}")
        return 0
    submit.require(sealed)
    if state := submit.queued(sealed, run):
        console.print(f"{run.root} is under way: {state}")
    else:
        console.print(f"submitted {submit.submit(sealed, run).id}: {run.root} (fingerprint {fingerprint(sealed)})")
    for line in submit.follow(sealed, run):
        console.print(f"  {line}")
    return 0


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the rest as Hydra overrides."""
    parser = argparse.ArgumentParser(prog="cpt launch", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", type=Path, metavar="DIR", help="a run directory that exists")
    parser.add_argument("--over-budget", action="store_true", help="launch although the plan costs more than `budget` allows")
    parser.add_argument("--dry-run", action="store_true", help="print script and config, touch nothing")
    return parser.parse_known_args(list(arguments))
