"""`cpt preflight [--collectives] [overrides] | --run DIR`: ask every node how it is, in this allocation or in a short job of its own; starts no rank.

`--collectives` then measures how fast the fit ones reach each other, and names who is slow.
"""

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
    if options.bandwidth_rank:
        from jobs.preflight_bandwidth import rank

        return rank(RunPaths(options.run))
    return ask(options, overrides, arguments)


def ask(options: argparse.Namespace, overrides: Sequence[str], arguments: Sequence[str]) -> int:
    """All nodes at once. Imports here: a node's own half, started sixty times at once, loads neither Hydra nor tables."""
    from cpt.config.compose import compose_parts
    from cpt.config.running import Scheduler
    from cpt.config.seal import read_config
    from jobs import preflight_bandwidth as bandwidth
    from slurm import preflight

    config = read_config(RunPaths(options.run.absolute()).config) if options.run else compose_parts(overrides)
    if config.cluster.scheduler is Scheduler.slurm and "SLURM_JOB_NODELIST" not in os.environ:
        lasting = bandwidth.longer(config) if options.collectives else config
        return preflight.in_a_job(lasting, [sys.executable, "-m", "jobs.cli", "preflight", *arguments])
    findings = preflight.rehearse(config, options.run)
    bandwidth.show(findings)
    slow = options.collectives and bandwidth.ask(config, [name for name in findings.nodes if name not in findings.unfit], options.run)
    return EXIT_OURS if findings.unfit or slow else EXIT_DONE


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the rest as Hydra overrides."""
    parser = argparse.ArgumentParser(prog="cpt preflight", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", type=Path, metavar="DIR", help="a run directory that exists")
    parser.add_argument("--collectives", action="store_true", help="measure all-reduce and all-gather inside and between nodes; name what is slow")
    parser.add_argument("--node", action="store_true", help="report on this node only; the batch script starts this on each")
    parser.add_argument("--bandwidth-rank", action="store_true", help="be one rank of --collectives")
    parser.add_argument("--attempt", type=int, default=0, help="whose folder takes the report of --node")
    return parser.parse_known_args(list(arguments))
