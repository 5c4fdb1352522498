"""`cpt plan [overrides]`: layout, memory, steps and cost of a run; refuses what cannot work. Kept below `<run_root>/plans/`.

`--search` ranks all layouts of its nodes, `--reliability` weighs saves and spares against failures, `--validate` holds the formulas against
published figures, `--calibrate RUN` takes the machines' constants from a run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cpt.config import RunConfig
from cpt.config.compose import compose_config, compose_parts
from cpt.core.errors import EXIT_DONE, EXIT_OURS, MissingInput
from cpt.core.records import MixturePlan
from cpt.data import open_manifest
from cpt.mix import plan_mixture
from cpt.plan import unprepared
from jobs import plan_page
from jobs.console import open_console


def main(arguments: Sequence[str]) -> int:
    """Each question has its own answer; without one, the plan."""
    options, overrides = parse(arguments)
    console = open_console()
    if options.validate:
        return EXIT_DONE if plan_page.validate(compose_parts(overrides).runs, console) else EXIT_OURS
    if options.calibrate:
        plan_page.calibrate(options.calibrate.absolute(), console)
        return EXIT_DONE
    config = compose_config(overrides)
    if options.search:
        plan_page.search(config, console)
    elif options.reliability:
        plan_page.reliability(config, console)
    else:
        plan_page.plan(config, mixture_of(config), console)
    return EXIT_DONE


def mixture_of(config: RunConfig) -> MixturePlan:
    """Of the prepared corpus; a plan does not need one, a launch does."""
    try:
        manifest = open_manifest(config)
    except MissingInput:
        return unprepared(config)
    return plan_mixture(config.mixture, manifest, config.train.train_tokens, config.train.sequence_length)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the rest as Hydra overrides."""
    parser = argparse.ArgumentParser(prog="cpt plan", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    question = parser.add_mutually_exclusive_group()
    question.add_argument("--search", action="store_true", help="all layouts of these nodes, the best as a config")
    question.add_argument("--reliability", action="store_true", help="interval between saves, spares, signal lead, with a picture")
    question.add_argument("--validate", action="store_true", help="the formulas against published figures")
    question.add_argument("--calibrate", type=Path, metavar="RUN", help="constants of the machines from a run's directory")
    return parser.parse_known_args(list(arguments))
