"""`cpt config [overrides]`: the composed, validated config with every key, and its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence

from cpt.config.compose import compose_config
from cpt.config.fingerprint import fingerprint
from cpt.config.seal import to_yaml


def main(overrides: Sequence[str]) -> int:
    """Print it; the comment in front names the run."""
    config = compose_config(overrides)
    print(f"# {config.name}-{fingerprint(config)}\n{to_yaml(config)}", end="")
    return 0
