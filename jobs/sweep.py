"""`cpt sweep [overrides] [--sweep NAME] [--wait]`: table of a sweep's trials; writes the chosen setting as a config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cpt.core.errors import EXIT_DONE, EXIT_OURS


def main(overrides: Sequence[str]) -> int:
    """0 with a choice written, or while trials still run; 1 when every trial ended and none is done, or the wait was too long."""
    arguments, rest = parse(overrides)
    from cpt.config.compose import compose_config
    from cpt.sweep.choose import complete, decide, write_choice
    from cpt.sweep.collect import load_sweep
    from cpt.sweep.policy import sweep_policy
    from cpt.sweep.show import as_table
    from cpt.sweep.wait import progress, watch
    from cpt.tracking.journal import series
    from jobs.console import open_console

    console = open_console()
    config = compose_config(rest, validated=False)
    sweep = config.runs.sweep(arguments.sweep or config.sweep.name)
    load_sweep(sweep)
    policy = sweep_policy(sweep, config, rest)
    table = decide(sweep, policy, series)
    if arguments.wait:
        for table in watch(lambda: decide(sweep, policy, series), arguments.timeout):
            console.print(f"sweep {table.name}: {progress(table)}")
    console.print(as_table(table))
    for note in table.notes:
        console.print(f"note: {note}")
    if not complete(table) and not arguments.now:
        console.print(f"{progress(table)}: the choice is made when all have ended (`--wait`), or with `--now`")
        return EXIT_DONE
    if table.chosen is None:
        console.print(f"nothing chosen: {table.reason}")
        return EXIT_OURS
    text = write_choice(table, sweep, config.runs)
    console.print(f"chosen: trial {table.chosen:03d}, {table.reason}\n{config.runs.chosen(table.name)}:\n{text}")
    console.print(f"next: cpt plan experiment=<name> chosen={table.name}")
    return EXIT_DONE


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the rest as Hydra overrides."""
    parser = argparse.ArgumentParser(prog="cpt sweep", description=__doc__, allow_abbrev=False)
    parser.add_argument("--sweep", metavar="NAME", default="", help="default: sweep.name")
    parser.add_argument("--wait", action="store_true", help="until all trials have ended")
    parser.add_argument("--timeout", type=float, default=0.0, metavar="SECONDS", help="of --wait; 0 waits for ever")
    parser.add_argument("--now", action="store_true", help="choose among the trials that are done")
    return parser.parse_known_args(list(arguments))
