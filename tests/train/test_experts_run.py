"""A run with experts, from its base's gate to the exported folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.core.paths import RunPaths
from cpt.core.records import ExportRecord
from cpt.core.world import World
from cpt.tracking.journal import read_events, series
from tests.ranks import Ranks, run_ranks
from tests.tiny import make_run, train_rank
from tests.train.test_exact_anomaly import assert_same
from tests.train.test_exact_resume import last_step, wait_for

pytestmark = pytest.mark.engine

TP2_EP2 = ["slurm.tasks_per_node=2", "parallel.tensor_parallel_size=2", "parallel.sequence_parallel=true", "parallel.expert_parallel_size=2"]
DROPOUT = ["train.attention_dropout=0.1", "train.hidden_dropout=0.1"]
EXPERTS = ["model=tiny_moe", "train.train_tokens=5120", "train.precision=fp32", *TP2_EP2, *DROPOUT]


@pytest.fixture(scope="module")
def trained(experts_root: Path) -> RunPaths:
    """Ten steps at TP2 x EP2 with dropout."""
    run = make_run(experts_root, "experts", EXPERTS)
    assert run_ranks(2, train_rank, run, 0) == [0, 0]
    return run


@pytest.mark.slow
def test_the_journal_shows_how_experts_are_used(trained: RunPaths) -> None:
    imbalance, mean, idle = (series(trained, f"moe/{name}") for name in ("imbalance", "imbalance_mean", "idle_experts"))
    assert sorted(imbalance) == list(range(1, 11))
    assert all(1 <= mean[step] <= imbalance[step] <= 8 / 3 for step in imbalance)
    assert all(count == int(count) and 0 <= count <= 3 * 5 for count in idle.values())


def test_what_was_trained_is_exported(trained: RunPaths) -> None:
    """Only when transformers answers from the folder as the engine does from the checkpoint."""
    record = run_ranks(1, _export, trained)[0]
    assert record.step == 10
    assert record.logit_difference <= 1e-5


@pytest.mark.slow
def test_exact_resume_after_a_kill(trained: RunPaths, experts_root: Path) -> None:
    run = make_run(experts_root, "experts-killed", EXPERTS)
    ranks = Ranks(2, train_rank, run, 0)
    wait_for(lambda: last_step(run) >= 7)
    ranks.kill()
    assert run_ranks(2, train_rank, run, 1) == [0, 0]
    assert [event.fields["step"] for event in read_events(run) if event.name == "resume"] == [5]
    assert_same(run, trained)


def _export(_world: World, run: RunPaths) -> ExportRecord:
    from cpt.config.seal import read_config
    from cpt.export import export_run

    return export_run(run, read_config(run.config))
