"""`cpt export --run DIR`: the newest checkpoint as a Hugging Face folder, refused unless its logits are the engine's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cpt.config.seal import read_config
from cpt.core.paths import RunPaths
from jobs.console import open_console


def main(overrides: Sequence[str]) -> int:
    """Say what was exported and how closely it agrees with the engine."""
    parser = argparse.ArgumentParser(prog="cpt export", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory")
    run = RunPaths(parser.parse_args(overrides).run.absolute())
    config = read_config(run.config)
    from cpt.export import export_run  # torch

    record = export_run(run, config)
    console = open_console()
    console.print(f"exported {record.checkpoint} to {run.export}")
    console.print(f"logits of the reloaded folder: largest difference {record.logit_difference:.2g} of the largest logit (allowed {record.tolerance:.2g})")
    console.print(f"transformers continues: {record.sample!r}")
    console.print(f"next: cpt report --run {run.root}")
    return 0
