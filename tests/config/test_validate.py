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
            fix="slurm.nodes=40 or 48 or 60 or 64",
        )
    ]
    for nodes in (40, 48, 60, 64):
        compose_config(["experiment=ellama_70b", f"slurm.nodes={nodes}"])


def test_a_cluster_too_small_for_one_replica() -> None:
    assert refused("experiment=demo", "cluster=local", "slurm.nodes=1", "slurm.spare_nodes=0")[0].fix == "parallel=single"


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
    assert refused("experiment=ellama_70b", "slurm.nodes=72")[0].fix == "slurm.nodes=64"
    assert refused("experiment=demo", "train.sequence_length=16384", "train.train_tokens=1_000_000")[0].fix == "train.sequence_length=8192"
    assert refused("experiment=ellama_8b", "train.sequence_length=8191")[0].fix == "train.sequence_length=8192"


def test_spares_count_against_the_cluster() -> None:
    compose_config(["experiment=ellama_70b", "slurm.spare_nodes=4"])
    assert refused("experiment=ellama_70b", "slurm.spare_nodes=5") == [
        Problem(
            where="slurm.spare_nodes",
            what="is 5",
            why="with slurm.nodes=60 that is more than the 64 that cluster h100_ib gives one job",
            fix="slurm.spare_nodes=4",
        )
    ]


def test_the_job_must_fit_partition_and_node() -> None:
    (problem,) = refused("experiment=ellama_70b", "cluster.max_time=1-00:00:00")
    assert (problem.where, problem.fix) == ("slurm.time", "slurm.time=1-00:00:00")
    compose_config(["experiment=ellama_70b", "cluster.max_time=2-0"])
    (problem,) = refused("experiment=demo", "cluster.gpus_per_node=2")
    assert (problem.where, problem.fix) == ("slurm.tasks_per_node", "slurm.tasks_per_node=2")


def test_each_rank_of_a_node_has_its_place() -> None:
    (problem,) = refused("experiment=ellama_70b", "cluster.cpu_bind='map_ldom:0,0,1,1'")
    assert (problem.where, problem.fix) == ("cluster.cpu_bind", "cluster.cpu_bind=map_ldom:<8 entries>")
    (problem,) = refused("experiment=ellama_70b", "cluster.mem_bind='verbose,map_mem:0'")
    assert problem.where == "cluster.mem_bind"
    for free in ("cores", "'mask_cpu:0xff'", "'map_ldom:0,0,0,0,1,1,1,1,1'", "''"):
        compose_config(["experiment=demo", f"cluster.cpu_bind={free}", "slurm.nodes=6", "slurm.tasks_per_node=1"])


APPTAINER = ["cluster.scheduler=slurm", "cluster.runtime=apptainer", "cluster.image=/x.sif"]


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["cluster.runtime=pyxis"], "cluster.image"),
        (["cluster.image=/x.sif"], "cluster.runtime"),
        (["cluster.runtime=apptainer", "cluster.image=/x.sif", "cluster.mounts=[data:/data]"], "cluster.mounts"),
        (["cluster.runtime=apptainer", "cluster.image=/x.sif", "cluster.mounts=['/a:/b,/c:/d']"], "cluster.mounts"),
        (["cluster.runtime=pyxis", "cluster.image=/x.sqsh", "cluster.mounts=['/a b:/b']"], "cluster.mounts"),
        (["cluster.runtime=pyxis", "cluster.image=/x.sqsh", "cluster.mounts=['/a$(id):/b']"], "cluster.mounts"),
        (["cluster.max_time=soon"], "cluster.max_time"),
        (["cluster.gpu_hour_price=-1"], "cluster.gpu_hour_price"),
        (["+cluster.environment.a-b=1"], "cluster.environment"),
        (["+fabric.environment.a-b=1"], "fabric.environment"),
        (["tracking.uri='https://me:hunter2@mlflow'"], "tracking.uri"),
        (["checkpoint.fast_folder=scratch", "checkpoint.fast_interval=2"], "checkpoint.fast_folder"),
        (["checkpoint.fast_folder=/scratch"], "checkpoint.fast_interval"),
        (["checkpoint.fast_interval=2"], "checkpoint.fast_interval"),
        (["checkpoint.fast_folder=/scratch", "checkpoint.fast_interval=1000"], "checkpoint.fast_interval"),
        ([*APPTAINER, "cluster.mounts=['/local/x:/scratch']", "checkpoint.fast_folder=/local/x", "checkpoint.fast_interval=2"], "checkpoint.fast_folder"),
    ],
)
def test_facts_of_the_machines(overrides: list[str], where: str) -> None:
    assert {problem.where for problem in refused("experiment=demo", *overrides)} == {where}


def test_a_fast_tier_that_nodes_have() -> None:
    compose_config(["experiment=demo", "checkpoint.fast_folder='$TMPDIR/cpt'", "checkpoint.fast_interval=2"])
    inside = [*APPTAINER, "cluster.mounts=['/local:/scratch']", "checkpoint.fast_folder=/scratch/cpt", "checkpoint.fast_interval=2"]
    compose_config(["experiment=demo", *inside])


@pytest.mark.parametrize(
    "override",
    [
        "+cluster.environment.HF_TOKEN=canary",
        "+cluster.environment.MY_API_KEY=canary",
        "+fabric.environment.DB_PASSWORD=canary",
        "+slurm.extra.wandb-api-key=canary",
        "cluster.setup=['export AWS_SECRET_ACCESS_KEY=canary']",
        "cluster.secrets=['HF_TOKEN=canary']",
        "tracking.uri='https://me:canary@mlflow'",
    ],
)
def test_secrets_have_no_value_in_a_config(override: str) -> None:
    (problem,) = refused("experiment=demo", override)
    assert "canary" not in str(problem)
    assert "secrets=[" in problem.fix or problem.where == "tracking.uri"


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "NCCL_IB_PKEY", "HF_TOKEN_PATH", "KEYBOARD"])
def test_these_are_no_secrets(name: str) -> None:
    compose_config(["experiment=demo", f"+cluster.environment.{name}=1", f"cluster.setup=['export {name}=1', 'export HF_TOKEN=\"$(cat ~/.token)\"']"])


def test_divisors_and_nearest() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert nearest([4, 8, 16, 32, 64], 15, 3) == [4, 8, 16]


def test_rows_are_cut_into_two_chunks_a_context_parallel_rank() -> None:
    found = refused("experiment=ellama_8b", "parallel.context_parallel_size=3", "slurm.nodes=6", "slurm.spare_nodes=0")
    assert [(problem.where, problem.fix) for problem in found if problem.where == "train.sequence_length"] == [
        ("train.sequence_length", "train.sequence_length=8196")
    ]
    assert "context_parallel_size=3 into two chunks a rank" in found[0].why or "context_parallel_size=3 into two chunks a rank" in found[-1].why


def test_a_replica_has_context_parallel_ranks() -> None:
    found = refused("experiment=ellama_70b", "parallel.context_parallel_size=2", "slurm.nodes=59")
    assert found[0].why == "one replica needs TP 8 x CP 2 x PP 4 = 64 ranks"


def test_chunks_must_divide_the_layers_of_a_stage_and_the_micro_batches_the_stages() -> None:
    assert refused("experiment=ellama_70b", "parallel.virtual_pipeline_size=3")[0] == Problem(
        where="parallel.virtual_pipeline_size",
        what="is 3",
        why="model.num_layers=80 / pipeline_parallel_size=4 must divide by it",
        fix="parallel.virtual_pipeline_size=1 or 2 or 4 or 5 or 10 or 20",
    )
    assert refused("experiment=ellama_70b", "parallel.virtual_pipeline_size=5", "train.global_batch_size=1455")[0].fix == "train.global_batch_size=1440 or 1500"
    compose_config(["experiment=ellama_70b", "parallel.virtual_pipeline_size=5"])
    assert refused("experiment=ellama_8b", "parallel.virtual_pipeline_size=2")[0].where == "parallel.virtual_pipeline_size"


def test_a_backend_is_refused_for_what_it_cannot_do() -> None:
    assert refused("experiment=demo", "train.attention=flash2", "train.precision=fp32")[0].fix == "train.attention=sdpa"
    assert refused("experiment=demo", "train.attention=flash4", "train.attention_dropout=0.1")[0].fix == "train.attention=flash2"
    assert refused("experiment=demo", "train.attention=transformer_engine", "train.document_masking=true")[0].fix == "train.attention=auto"


FP8 = ["model=tiny", "train.train_tokens=100000", "train.precision=bf16", "train.attention=transformer_engine", "train.fp8=tensorwise"]


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["train.precision=fp32"], "train.precision"),
        (["train.attention=auto"], "train.attention"),
        (["train.sequence_length=40"], "train.fp8"),
        (["train.fp8=mxfp8", "train.sequence_length=48"], "train.fp8"),
        (["parallel.tensor_parallel_size=2", "model.ffn_hidden_size=176"], "train.fp8"),
    ],
)
def test_fp8_is_refused_where_it_cannot_be(overrides: list[str], where: str) -> None:
    compose_config(FP8)
    assert where in {problem.where for problem in refused(*FP8, *overrides)}


def test_only_parts_and_layers_that_exist_are_computed_again() -> None:
    found = refused("experiment=demo", "parallel.recompute=selective", "parallel.recompute_modules=[mlp,moe]")
    assert (found[0].what, found[0].fix) == ("names moe", "parallel.recompute_modules=[mlp]")
    found = refused("experiment=demo", "parallel.recompute=full", "parallel.recompute_layers=16")
    assert found[0].why == "a model chunk has 15 layers"
    assert refused("experiment=demo", "parallel.recompute=none", "parallel.recompute_layers=2")[0].fix == "parallel.recompute_layers=0"
    found = refused("experiment=demo", "parallel.recompute_modules=[layernorm]")
    assert found[0].fix == "parallel.recompute_modules[0]=core_attn or mlp or moe or shared_experts"
