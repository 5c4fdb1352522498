"""`cpt prepare [overrides]`: raw text -> filtered, deduplicated, decontaminated, tokenized corpus with a manifest. Does what is missing, here or with SLURM."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from cpt.config.compose import compose_parts
from cpt.config.run import RunConfig
from cpt.core.errors import EXIT_DONE
from cpt.core.units import duration
from cpt.corpus.pipeline import plan_corpus
from cpt.corpus.prepare import finished, prepare
from cpt.corpus.summary import manifest_tables
from cpt.corpus.work import cores
from jobs.console import open_console
from jobs.prepare_page import Watcher, write_card
from jobs.prepare_submit import require_idle, show_status, submit


def main(arguments: Sequence[str]) -> int:
    """0 when the corpus stands, is queued, or was only looked at."""
    asked, overrides = parse(arguments)
    console, config = open_console(), compose_parts(overrides)
    if asked.sample:
        from jobs.prepare_look import look

        return look(config, asked.sample, console)
    if asked.submit or asked.status:
        return submit(config, console) if asked.submit else show_status(config, console)
    return _prepare(config, asked.workers, console)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the rest as Hydra overrides."""
    parser = argparse.ArgumentParser(prog="cpt prepare", description=__doc__, allow_abbrev=False)
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="look at N documents of each source and what the filters do to them; makes nothing")
    parser.add_argument("--workers", type=int, default=cores(), metavar="N", help="processes here; default: all cores")
    parser.add_argument("--submit", action="store_true", help="as a chain of SLURM job arrays; returns at once")
    parser.add_argument("--status", action="store_true", help="how far the stages are")
    return parser.parse_known_args(list(arguments))


def _prepare(config: RunConfig, workers: int, console: Console) -> int:
    pipeline = plan_corpus(config)
    manifest, note = finished(pipeline), "already prepared, nothing to do"
    if manifest is None:
        require_idle(config, pipeline)
        with Watcher(console) as watcher:
            manifest = prepare(config, watcher.show, workers)
        note = f"prepared in {duration(watcher.seconds)}, {duration(manifest.seconds)} of one core"
    for table in manifest_tables(manifest):
        console.print(table)
    console.print(f"{note}: {config.runs.data(config.corpus.name).manifest}", soft_wrap=True)
    console.print(f"data card: {write_card(config)}", soft_wrap=True)
    return EXIT_DONE
