"""`cpt plan [overrides]`: layout, memory, steps and cost of a run; refuses what cannot work. Kept below `<run_root>/plans/`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from cpt.config import RunConfig
from cpt.config.compose import compose_config
from cpt.config.fingerprint import fingerprint
from cpt.core.errors import MissingInput
from cpt.core.records import MixturePlan
from cpt.data import open_manifest
from cpt.mix import plan_mixture
from cpt.plan import plan, rows, unprepared
from jobs.console import open_console


def main(overrides: Sequence[str]) -> int:
    """Compose, plan, keep, show."""
    config = compose_config(overrides)
    record = plan(config, mixture_of(config))
    path = config.runs.plan(config.name, fingerprint(config))
    record.save(path)
    table = Table(title=f"{config.name}-{fingerprint(config)}", show_header=False, box=None, title_justify="left")
    for row in rows(config, record):
        table.add_row(*row)
    console = open_console()
    console.print(table)
    console.print(f"saved as {path}", soft_wrap=True)
    return 0


def mixture_of(config: RunConfig) -> MixturePlan:
    """Of the prepared corpus; a plan does not need one, a launch does."""
    try:
        manifest = open_manifest(config)
    except MissingInput:
        return unprepared(config)
    return plan_mixture(config.mixture, manifest, config.train.train_tokens, config.train.sequence_length)
