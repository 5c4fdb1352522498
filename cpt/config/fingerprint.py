"""A run is named by what changes its results and nothing else, so launching the same thing twice finds the first."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cpt.config.run import RunConfig
from cpt.core.artifacts import sha256_json

_CHANGES_RESULTS = ("seed", "corpus", "mixture", "model", "train", "optimizer", "schedule")
"""Not: layout (equal to rounding), cadence of saves and evaluations, cluster, job policy, tracking, folders, names."""


def fingerprint(config: RunConfig) -> str:
    """Ten hex digits. A sealed config and the same config composed again give the same."""
    whole = asdict(config)
    chosen: dict[str, Any] = {name: whole[name] for name in _CHANGES_RESULTS}
    for same_results in ("micro_batch_size", "attention", "stats_interval"):
        chosen["train"].pop(same_results)
    return sha256_json(chosen)[:10]
