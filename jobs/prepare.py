"""`cpt prepare [overrides]`: raw text -> filtered, deduplicated, tokenized corpus with a manifest. Does nothing when it stands."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from cpt.config.compose import compose_parts
from cpt.config.run import RunConfig
from cpt.core.records import DataManifest
from cpt.core.units import duration
from cpt.corpus.prepare import finished, prepare, steps
from cpt.corpus.summary import manifest_table
from jobs.console import open_console


def main(overrides: Sequence[str]) -> int:
    """0 when the corpus stands."""
    console = open_console()
    config = compose_parts(overrides)
    manifest = finished(config)
    if manifest is None:
        manifest = _prepare(config, console)
        note = f"prepared in {duration(manifest.seconds)}"
    else:
        note = "already prepared, nothing to do"
    table = manifest_table(manifest)
    console.print(table)
    for name, items in manifest.benchmarks.items():
        console.print(f"benchmark {name}: {items} items", soft_wrap=True)
    console.print(f"{note}: {config.runs.data(config.corpus.name).manifest}", soft_wrap=True)
    return 0


def _prepare(config: RunConfig, console: Console) -> DataManifest:
    """A line per step; under them a bar where somebody watches."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("prepare", total=steps(config.corpus))

        def observe(line: str) -> None:
            bar.console.print(line, soft_wrap=True)
            bar.advance(task)

        return prepare(config, observe)
