"""`cpt topology [overrides]`: the switches between nodes, what ordering a run's ranks by them brings, and what to ask SLURM for, with a picture.

`--node`, run on a compute node: its GPUs, adapters, NUMA nodes, and a `fabric` choice made of them. `--read FILE...` takes recorded outputs of
`scontrol show topology`, `nvidia-smi topo -m` and `ibstat` instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cpt.config.compose import compose_parts
from cpt.core.errors import EXIT_DONE
from cpt.topology import Fabric, discover
from jobs import topology_page
from jobs.console import open_console


def main(arguments: Sequence[str]) -> int:
    """What was read decides what is shown; without options, what SLURM says."""
    options, overrides = parse(arguments)
    console, config = open_console(), compose_parts(overrides)
    fabric: Fabric | None = None
    machine = discover() if options.node else None
    if options.read:
        fabric, machine = topology_page.read(options.read)
    elif not options.node:
        fabric = topology_page.ask(config)
    if machine:
        topology_page.node(config, machine, console)
    if fabric:
        topology_page.fabric(config, fabric, console)
    return EXIT_DONE


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the rest as Hydra overrides."""
    parser = argparse.ArgumentParser(prog="cpt topology", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--node", action="store_true", help="this machine: GPUs, adapters, rails, NUMA nodes, NCCL's settings")
    source.add_argument("--read", type=Path, action="extend", nargs="+", metavar="FILE", help="recorded outputs, recognized by what they say")
    options, overrides = parser.parse_known_args(list(arguments))
    files = [path for path in options.read or () if path.exists() or "=" not in str(path)]
    overrides += [str(path) for path in options.read or () if path not in files]  # also those behind the files
    options.read = files
    return options, overrides
