"""The search: it misses nothing that is valid, ranks by predicted time, says why others lose, and writes what can be composed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.parallel import Recompute
from cpt.config.run import RunConfig
from cpt.config.validate import layout_problems
from cpt.core.artifacts import write_text
from cpt.core.errors import UserError
from cpt.plan import plan, unprepared
from cpt.plan.memory import fullest_rank
from cpt.plan.search import Found, found_yaml, losses, lost_by, name, rows, search
from cpt.plan.step import step_seconds
from cpt.plan.workload import workload


def config(*overrides: str) -> RunConfig:
    return compose_config(["experiment=ellama_70b", *overrides])


@pytest.fixture(scope="module")
def found() -> Found:
    return search(config())


def test_the_best_is_the_layout_that_nvidia_publishes(found: Found) -> None:
    """TP4 CP2 PP4 for 70B in bf16 on H100 (dgxc-benchmarking), which no formula here was told."""
    best = found.fitting[0]
    assert name(best).startswith("TP 4 x CP 2 x PP 4 in ")
    assert best.seconds < step_seconds(workload(config()))["total"]


def test_nothing_valid_is_missed(found: Found) -> None:
    """By brute force over the same sizes, through the config's own rules: as many are valid, and the fastest that fits is the same."""
    base, valid, best = config("cluster.hardware.memory=80_000_000_000"), 0, 1e9
    pipelines = [(stages, chunks) for stages, chunks in itertools.product(range(1, 81), repeat=2) if 80 % (stages * chunks) == 0]
    for tensor, context, micro_batch, (stages, chunks) in itertools.product((1, 2, 4, 8), (1, 2, 4, 8, 16), (1, 2, 4, 8), pipelines):
        sizes = {"tensor_parallel_size": tensor, "context_parallel_size": context, "pipeline_parallel_size": stages, "virtual_pipeline_size": chunks}
        parallel = replace(base.parallel, **sizes, sequence_parallel=tensor > 1)
        candidate = replace(base, parallel=parallel, train=replace(base.train, micro_batch_size=micro_batch))
        if (stages == 1 and chunks > 1) or any(layout_problems(candidate)):
            continue
        valid += 1
        if fullest_rank(workload(candidate))["total"] <= base.cluster.hardware.memory:
            best = min(best, step_seconds(workload(candidate))["total"])
    assert 3 * valid == found.tried - found.refused["do not divide"], "each with three kinds of recomputation"
    assert found.fitting[0].seconds == pytest.approx(best)


def test_ranked_by_time_and_all_fit(found: Found) -> None:
    seconds = [round(candidate.seconds, 6) for candidate in found.fitting]
    assert seconds == sorted(seconds)
    assert all(candidate.memory["total"] <= 80_000_000_000 for candidate in found.fitting)
    assert found.tried == len(found.fitting) + found.refused["do not divide"] + found.refused["do not fit"]


def test_the_table_says_what_each_loses_by_and_shows_the_chosen_one(found: Found) -> None:
    table = rows(found, config(), 10)
    assert len(table) == 11
    assert [row[0] for row in table[:10]] == [str(place) for place in range(1, 11)]
    assert table[0][-1] == "best"
    assert table[-1][0].endswith("(chosen)")
    assert table[-1][1] == "TP 8 x PP 4 x DP 15, micro-batch 1"
    assert "tensor +" in table[-1][-1], "eight ranks that wait for each other"
    assert lost_by(found.fitting[0], found.fitting[0]) == "+0.0%"


def test_what_is_written_composes_into_the_same_step(found: Found, tmp_path: Path) -> None:
    run = config(f"run_root={tmp_path}")
    write_text(run.runs.found("parallel", "best"), found_yaml(found, run))
    chosen = config(f"run_root={tmp_path}", "parallel=best")
    assert plan(chosen, unprepared(chosen)).step_seconds == pytest.approx(found.fitting[0].seconds)


def test_sixteen_thousand_ranks_have_as_many_layouts() -> None:
    large = search(config("slurm.nodes=2048", "cluster.max_nodes=2048", "train.global_batch_size=2048"))
    assert large.world_size == 16_384
    assert large.fitting
    assert large.tried == search(config()).tried


def test_losing_nodes_leaves_what_divides() -> None:
    """59, 58 and 56 nodes: TP8 x PP4 goes on with 48, another layout with 50."""
    table = losses(config())
    assert [row[:2] for row in table] == [("1", "59"), ("2", "58"), ("4", "56")]
    assert {row[2].split(",")[0] for row in table} == {"48 nodes"}
    assert {row[3].split(",")[0] for row in table} == {"50 nodes"}


def test_a_small_memory_is_recomputed_for() -> None:
    tight = search(config("cluster.hardware.memory=30_000_000_000"))
    assert tight.fitting[0].memory["total"] <= 30_000_000_000
    assert any(candidate.parallel.recompute is not Recompute.none for candidate in tight.fitting[:10])


def test_nothing_fits_is_said_with_how_much_would_be_needed() -> None:
    run = config("cluster.hardware.memory=3_000_000_000")
    with pytest.raises(UserError, match=r"the one that needs least needs \d") as caught:
        found_yaml(search(run), run)
    assert caught.value.problems[0].where == "slurm.nodes"


def test_experts_are_spread_inside_a_node() -> None:
    """15.7B on eight GPUs; megatron-core wants sequence parallelism beside TP."""
    run = compose_config(["experiment=ellama_8b", "model=deepseek_v2_lite", "parallel=single", "slurm.nodes=1", "parallel.expert_parallel_size=8"])
    found = search(run)
    assert found.fitting
    assert all(candidate.parallel.sequence_parallel is (candidate.parallel.tensor_parallel_size > 1) for candidate in found.fitting)
    assert {candidate.parallel.context_parallel_size for candidate in found.fitting} == {1}
