"""`cpt base model=<name>`: put the base's Hugging Face folder in place and prove that the engine computes its logits."""

from __future__ import annotations

from collections.abc import Sequence

from cpt.config.compose import compose_parts
from jobs.console import open_console


def main(overrides: Sequence[str]) -> int:
    """Say where the base is and how closely the engine agrees with it."""
    config = compose_parts(overrides)
    from cpt.train.base import prepare_base  # torch

    folder, record = prepare_base(config)
    console = open_console()
    console.print(f"base: {folder}")
    console.print(
        f"parity: largest logit difference {record.logit_difference:.2g} of the largest logit (allowed {record.tolerance:.2g}) over {record.tokens} tokens, {record.layout}, fp32"
    )
    console.print(f"loss on the reference text: engine {record.engine_loss:.6f}, base {record.base_loss:.6f}")
    console.print(f"next: cpt prepare corpus={config.corpus.name}")
    return 0
