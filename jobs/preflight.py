"""`cpt preflight [overrides] | --run DIR`: ask every node how it is, in this allocation or in a short job of its own; starts no rank."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cpt.core.errors import EXIT_DONE, EXIT_OURS
from cpt.core.paths import RunPaths
from slurm import node


def main(arguments: Sequence[str]) -> int:
    """0 when all nodes are fit; of `--node` when it has reported, whatever it says: the report is the answer, and srun calls every other code an error."""
    options, overrides = parse(arguments)
    if options.node:
        node.report(RunPaths(options.run), options.attempt)
        return EXIT_DONE
    return ask(options.run, overrides, arguments)


def ask(folder: Path | None, overrides: Sequence[str], arguments: Sequence[str]) -> int:
    """All nodes at once. Imports here: a node's own half, started sixty times at once, loads neither Hydra nor tables."""
    from rich.table import Table

    from cpt.config.compose import compose_parts
    from cpt.config.running import Scheduler
    from cpt.config.seal import read_config
    from jobs.console import open_console
    from slurm import preflight

    config = read_config(RunPaths(folder.absolute()).config) if folder else compose_parts(overrides)
    if config.cluster.scheduler is Scheduler.slurm and "SLURM_JOB_NODELIST" not in os.environ:
        return preflight.in_a_job(config, [sys.executable, "-m", "jobs.cli", "preflight", *arguments])
    findings = preflight.rehearse(config, folder)
    free = f"{findings.free_bytes / 1e9:.0f} GB free where the run lies"
    table = Table("nodes", "GPUs", "versions", "attention", "verdict", title=free, box=None, title_justify="left")
    for row in preflight.rows(findings):
        table.add_row(*row)
    console = open_console()
    console.print(table)
    console.print(preflight.summary(findings))
    return EXIT_OURS if findings.unfit else EXIT_DONE


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the rest as Hydra overrides."""
    parser = argparse.ArgumentParser(prog="cpt preflight", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", type=Path, metavar="DIR", help="a run directory that exists")
    parser.add_argument("--node", action="store_true", help="report on this node only; the batch script starts this on each")
    parser.add_argument("--attempt", type=int, default=0, help="whose folder takes the report of --node")
    return parser.parse_known_args(list(arguments))
