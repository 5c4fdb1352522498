"""A run with experts, from its base's gate to the exported folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.core.paths import RunPaths
from cpt.core.records import ExportRecord
from cpt.core.world import World
from cpt.tracking.journal import series
from tests.ranks import run_ranks
from tests.tiny import make_run, tiny_config, train_rank

pytestmark = pytest.mark.engine

LAYOUT = ["slurm.tasks_per_node=2", "parallel.tensor_parallel_size=2", "parallel.sequence_parallel=true", "parallel.expert_parallel_size=2"]


@pytest.fixture(scope="module")
def trained(root: Path) -> RunPaths:
    """Ten steps at TP2 x EP2 in bf16."""
    run_ranks(1, _make_base, root)
    run = make_run(root, "experts", ["model=tiny_moe", "train.train_tokens=5120", *LAYOUT])
    assert run_ranks(2, train_rank, run, 0) == [0, 0]
    return run


def _make_base(_world: World, root: Path) -> None:
    from cpt.train.base import prepare_base

    prepare_base(tiny_config(root, "model=tiny_moe"))


def test_the_journal_shows_how_experts_are_used(trained: RunPaths) -> None:
    imbalance, mean, idle = (series(trained, f"moe/{name}") for name in ("imbalance", "imbalance_mean", "idle_experts"))
    assert sorted(imbalance) == list(range(1, 11))
    assert all(1 <= mean[step] <= imbalance[step] <= 8 / 3 for step in imbalance)
    assert all(count == int(count) and 0 <= count <= 3 * 5 for count in idle.values())


def test_what_was_trained_is_exported(trained: RunPaths) -> None:
    """Only when transformers answers from the folder as the engine does from the checkpoint."""
    record = run_ranks(1, _export, trained)[0]
    assert record.step == 10
    assert record.logit_difference <= 1e-4


def _export(_world: World, run: RunPaths) -> ExportRecord:
    from cpt.config.seal import read_config
    from cpt.export import export_run

    return export_run(run, read_config(run.config))
