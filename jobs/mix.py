"""`cpt mix show|diff|verify|trace`: what a config or a run reads, how often, whether its bytes are what was prepared, and where a sample comes from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jobs import mix_page, mix_trace, mix_verify
from jobs.console import open_console
from jobs.mix_reading import given, need, reading

USAGE = """
  cpt mix show   [overrides | --run RUN]    weights, tokens, epochs and caps of every source
  cpt mix diff   A B                        each a run, or overrides in quotes: 'experiment=x mixture=balanced'
  cpt mix verify [overrides | --run RUN]    hash every token file, and hold the shares of the whole run against the plan
  cpt mix trace  --run RUN SAMPLE[:TOKEN]   from a sample back to documents, files and offsets
"""


def main(arguments: Sequence[str]) -> int:
    """0, or 1 when `verify` finds damage."""
    options = parse(arguments)
    match options.what:
        case "show":
            return mix_page.show(open_console(), reading(options.run, options.rest))
        case "diff":
            need(2, options.rest, "compares two: cpt mix diff A B", "cpt mix diff RUN RUN, or cpt mix diff RUN 'experiment=<name> mixture.<key>=<value>'")
            return mix_page.diff(open_console(), *(given(side) for side in options.rest))
        case "verify":
            return mix_verify.verify(open_console(), reading(options.run, options.rest))
        case _:
            need(1, options.rest, "looks at one sample", "cpt mix trace --run RUN SAMPLE, or SAMPLE:TOKEN")
            return mix_trace.trace_sample(open_console(), reading(options.run, []), options.rest[0])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What to do, with what: options may stand anywhere among overrides."""
    parser = argparse.ArgumentParser(prog="cpt mix", usage=USAGE, description=__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=["show", "diff", "verify", "trace"])
    parser.add_argument("rest", nargs="*", metavar="overrides, runs or a sample")
    parser.add_argument("--run", help="a run directory, or its name below runs/")
    return parser.parse_intermixed_args(list(arguments))
