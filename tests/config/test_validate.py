"""Impossible layouts are refused with neighbors that work; the neighbors are tried."""

from __future__ import annotations

import pytest

from cpt.config.compose import compose_config
from cpt.config.validate import divisors, nearest
from cpt.core.errors import Problem, UserError


def refused(*overrides: str) -> list[Problem]:
    with pytest.raises(UserError) as caught:
        compose_config(overrides)
    return list(caught.value.problems)


def test_tensor_parallel_must_divide_the_heads() -> None:
    assert refused("experiment=demo", "parallel.tensor_parallel_size=2")[0] == Problem(
        where="parallel.tensor_parallel_size",
        what="is 2",
        why="model.num_attention_heads=9 must divide by it",
        fix="parallel.tensor_parallel_size=1 or 3",
    )


def test_pipeline_must_divide_the_layers() -> None:
    assert refused("experiment=demo", "parallel.pipeline_parallel_size=4")[0] == Problem(
        where="parallel.pipeline_parallel_size",
        what="is 4",
        why="model.num_layers=30 must divide by it",
        fix="parallel.pipeline_parallel_size=1 or 2 or 3 or 5 or 6 or 10 or 15 or 30",
    )


def test_nodes_must_hold_whole_replicas_and_keep_the_batch() -> None:
    found = refused("experiment=ellama_70b", "slurm.nodes=59")
    assert found == [
        Problem(
            where="slurm.nodes",
            what="is 59 x 8 ranks = 472",
            why="one replica needs TP 8 x PP 4 = 32 ranks",
            fix="slurm.nodes=36 or 40 or 48 or 60",
        )
    ]
    for nodes in (36, 40, 48, 60):
        compose_config(["experiment=ellama_70b", f"slurm.nodes={nodes}"])


def test_a_cluster_too_small_for_one_replica() -> None:
    assert refused("experiment=demo", "cluster=local", "slurm.nodes=1")[0].fix == "parallel=single"


def test_global_batch_must_divide_by_the_replicas() -> None:
    found = refused("experiment=ellama_70b", "train.global_batch_size=1024")
    assert found == [
        Problem(
            where="train.global_batch_size",
            what="is 1024",
            why="must divide by micro_batch_size 1 x data_parallel_size 15 = 15",
            fix="train.global_batch_size=1020 or 1035",
        )
    ]
    for batch in (1020, 1035):
        compose_config(["experiment=ellama_70b", f"train.global_batch_size={batch}"])


def test_cluster_and_base_have_limits() -> None:
    assert refused("experiment=ellama_70b", "slurm.nodes=64")[0].fix == "slurm.nodes=60"
    assert refused("experiment=demo", "train.sequence_length=16384", "train.train_tokens=1_000_000")[0].fix == "train.sequence_length=8192"
    assert refused("experiment=ellama_8b", "train.sequence_length=8191")[0].fix == "train.sequence_length=8192"


def test_divisors_and_nearest() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert nearest([4, 8, 16, 32, 64], 15, 3) == [4, 8, 16]
