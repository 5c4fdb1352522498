"""The planner against published numbers, and its refusals with what would fit instead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cpt.config import RunConfig
from cpt.config.compose import compose_config
from cpt.core import units
from cpt.core.errors import UserError
from cpt.core.records import MixturePlan, SourceShare
from cpt.plan import plan, rows, unprepared
from cpt.plan.flops import flops_per_token
from cpt.plan.memory import checkpoint_bytes, expert_parameters, fullest_rank, stage_parameters
from cpt.plan.memory import stage_memory as memory_of
from cpt.plan.workload import workload

GIB = 2**30


def config(experiment: str, *overrides: str) -> RunConfig:
    return compose_config([f"experiment={experiment}", *overrides])


def stage_memory(run: RunConfig, stage: int) -> dict[str, int]:
    return memory_of(workload(run), stage)


@pytest.mark.parametrize(("experiment", "expected"), [("ellama_8b", 5.147e10), ("ellama_70b", 4.492e11)])
def test_flops_per_token(experiment: str, expected: float) -> None:
    """megatron-core's own count at 8192 tokens, causal attention."""
    assert flops_per_token(config(experiment).model, 8192) == pytest.approx(expected, rel=0.002)


def test_flops_reproduce_a_published_throughput() -> None:
    """Megatron-Bridge 26.04, 70B on 64 H100: 1633 tokens/s/GPU are printed as 734 TFLOP/s."""
    assert 1633 * flops_per_token(config("ellama_70b").model, 8192) == pytest.approx(734e12, rel=0.002)


def test_ellama_70b_costs_what_was_reported() -> None:
    """eBay: 11.8M tokens a step, 85k steps, about 340k GPU-hours, about one month (arXiv 2501.09706)."""
    run = config("ellama_70b")
    record = plan(run, unprepared(run))
    assert record.tokens_per_step == 11_796_480
    assert record.steps == pytest.approx(85_000, rel=0.01)
    assert record.gpu_hours == pytest.approx(340_000, rel=0.03)
    assert 28 < record.hours / 24 < 31
    expected = {"tensor": 8, "context": 1, "pipeline": 4, "virtual": 1, "expert": 1, "data": 15, "world": 480, "nodes": 60, "micro_batches": 96}
    assert record.layout == expected
    assert run.peak_lr == pytest.approx(1.5e-5)


def test_node_counts_after_losing_nodes() -> None:
    """Four nodes hold a replica; the next counts below 60 that keep 1440 sequences are 48, 40, 36."""
    run = config("ellama_70b")
    record = plan(run, unprepared(run))
    assert record.valid_nodes[-4:] == [40, 48, 60, 64]
    assert all(nodes % 4 == 0 and 1440 % (nodes // 4) == 0 for nodes in record.valid_nodes)


def test_stage_parameters_add_up() -> None:
    """Over all ranks, less the norms that TP keeps whole, they are the model; tied embeddings add a copy on the last stage."""
    large, small = config("ellama_70b"), config("demo")
    per_stage = [stage_parameters(large.model, large.parallel, stage) for stage in range(4)]
    assert [round(count / 1e9, 4) for count in per_stage] == [2.2708, 2.1394, 2.1394, 2.2708]
    assert 8 * sum(per_stage) - 7 * (2 * 80 + 1) * 8192 == large.model.parameters == 70_553_706_496
    tied = sum(stage_parameters(small.model, small.parallel, stage) for stage in range(2))
    assert 3 * tied - 2 * (2 * 30 + 1) * 576 == small.model.parameters + 49152 * 576


DEEPSEEK = ["model=deepseek_v2_lite", "parallel.sequence_parallel=true", "slurm.nodes=3", "slurm.tasks_per_node=8", "train.global_batch_size=1440"]


def test_deepseek_v2_lite_has_the_published_size() -> None:
    """15.7B, of which 2.4B a token: without the 0.21B of the embedding, of which a token passes one row (arXiv 2405.04434, appendix B)."""
    model = config("ellama_8b", *DEEPSEEK).model
    assert model.parameters == 15_706_484_224  # model.safetensors.index.json: 31,412,968,448 bytes of bf16
    assert model.active_parameters - model.vocab_size * model.hidden_size == pytest.approx(2.45e9, rel=0.001)
    assert flops_per_token(model, 0) == 6 * (model.active_parameters - model.vocab_size * model.hidden_size - 27 * (2 * 2048 + 512) - 2048)


def test_stage_parameters_of_experts_add_up() -> None:
    """EP4 x TP2 on 8 ranks of a stage: each expert on two ranks; norms and routers on all, but for one copy."""
    run = config("ellama_8b", *DEEPSEEK, "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=3", "parallel.expert_parallel_size=4")
    model, parallel = run.model, run.parallel
    stages = [(stage_parameters(model, parallel, stage), expert_parameters(model, parallel, stage)) for stage in range(3)]
    copied = 27 * (2 * 2048 + 512) + 26 * 64 * 2048 + 2048
    assert sum(2 * (held - experts) + 4 * experts for held, experts in stages) - copied == model.parameters
    assert stages[0][1] * 9 == stages[1][1] * 8, "the first layer is dense"
    memory = stage_memory(run, 1)
    held, experts = stages[1]
    assert memory["optimizer"] == 12 * ((held - experts) // 4 + experts // 2)


def test_state_of_8b_on_8_gpus() -> None:
    """bf16 weights, fp32 gradients, fp32 master and moments over 8 ranks: 6 + 12 / 8 bytes a parameter."""
    run = config("ellama_8b", "parallel=single", "parallel.recompute=full", "slurm.nodes=1")
    memory = stage_memory(run, 0)
    state = memory["weights"] + memory["gradients"] + memory["optimizer"]
    assert state == pytest.approx(run.model.parameters * 7.5)


def test_state_in_fp32_has_no_master_copy() -> None:
    run = config("demo", "parallel=single", "slurm.nodes=1", "slurm.tasks_per_node=2", "train.precision=fp32")
    memory = stage_memory(run, 0)
    assert memory["weights"] + memory["gradients"] + memory["optimizer"] == run.model.parameters * (8 + 8 // 2)


def test_checkpoint_of_8b() -> None:
    """Without the bf16 copy that NVIDIA's 105 GB hold beside the master weights."""
    assert checkpoint_bytes(config("ellama_8b").model) / GIB == pytest.approx(104.7 * 12 / 14, abs=0.05)


def test_a_node_has_room_for_three_of_its_own_and_three_of_its_neighbor() -> None:
    run = config("ellama_70b", "checkpoint.fast_folder=/local/scratch", "checkpoint.fast_interval=20")
    record = plan(run, unprepared(run))
    [said] = [value for name, value in rows(run, record) if name == "fast checkpoints"]
    assert f"{units.size(6 * record.checkpoint_bytes / run.slurm.nodes)} on each node's /local/scratch" in said


def test_disk_is_what_is_kept_and_one_being_written() -> None:
    run = config("ellama_70b", "checkpoint.keep_last=3")
    record = plan(run, unprepared(run))
    assert record.checkpoints == 424  # 84,771 steps, one each 200, and the last
    assert record.disk_bytes == 4 * record.checkpoint_bytes
    more = config("ellama_70b", "checkpoint.keep_last=3", "checkpoint.keep_best=2", "checkpoint.keep_every=8000")
    assert plan(more, unprepared(more)).disk_bytes == (4 + 2 + 10) * record.checkpoint_bytes


def test_first_stage_holds_all_micro_batches_in_flight() -> None:
    run = config("ellama_70b", "parallel.sequence_parallel=true", "cluster.hardware.memory=200_000_000_000")
    by_stage = [stage_memory(run, stage)["activations"] for stage in range(4)]
    assert by_stage[0] == 4 * by_stage[2] // 2
    assert by_stage[0] > by_stage[1] > by_stage[2]
    # One micro-batch of 20 layers, TP8: about 9.8 GiB were counted in a 480-rank rehearsal with megatron-core's own norm.
    assert by_stage[0] / 4 / GIB == pytest.approx(9.8, rel=0.1)


def test_recompute_trades_memory() -> None:
    full = stage_memory(config("ellama_70b", "parallel.recompute=full"), 0)["activations"]
    none = stage_memory(config("ellama_70b", "parallel.recompute=none"), 0)["activations"]
    per_micro_batch = 20 * 8192 * 8192 * 2 // 8  # each layer's input, cut by sequence parallelism
    assert full == pytest.approx(4 * per_micro_batch + none / 80, rel=0.001)


def test_what_does_not_fit_is_refused_with_what_does() -> None:
    run = config("ellama_8b", "parallel=single")
    with pytest.raises(UserError) as caught:
        plan(run, unprepared(run))
    (problem,) = caught.value.problems
    assert problem.where == "cluster.hardware.memory"
    assert problem.what == "is 74.5 GiB, the fullest rank needs 112 GiB"
    assert problem.fix.startswith("parallel.recompute=full, or parallel.tensor_parallel_size=2")
    for option in problem.fix.split(", or "):
        changed = config("ellama_8b", "parallel=single", *option.split(" "))
        assert plan(changed, unprepared(changed)).memory["total"] <= changed.cluster.hardware.memory


def test_too_few_nodes_are_refused_with_how_many() -> None:
    run = config("ellama_70b", "parallel=tp2", "slurm.nodes=1")
    with pytest.raises(UserError, match=r"fix: slurm\.nodes=4 "):
        plan(run, unprepared(run))


def test_nothing_fits() -> None:
    run = config("ellama_70b", "cluster.hardware.memory=1000")
    with pytest.raises(UserError, match="a larger cluster"):
        plan(run, unprepared(run))


def test_table_says_what_is_not_known_yet() -> None:
    run = config("ellama_70b")
    table = dict(rows(run, plan(run, unprepared(run))))
    assert table["mixture"].startswith("corpus not prepared")
    assert table["steps"] == "84,771 = 1 T tokens"
    assert "GPU-hours" in table["time"]
    assert "rank-hours" in dict(rows(config("demo"), plan(config("demo"), unprepared(config("demo")))))["time"]


def test_table_shows_the_mixture() -> None:
    run = config("demo")
    sizes = {"planned_tokens": 20_480, "available_tokens": 4_096_100, "epoch_tokens": 4_096_000}
    share = SourceShare(name="listings", group="domain", language="en", weight=0.5, epoch_cap=4.0, sha256="s", **sizes)
    mixture = MixturePlan(train_tokens=40_960, shares=[share], data_hash="d")
    record = plan(run, mixture)
    assert record.mixture == mixture
    assert dict(rows(run, record))["source listings"] == "domain, en: 50.0% = 20.5 k of 4.1 M tokens (0.005 of at most 4 epochs)"
    assert "mixture" not in dict(rows(run, replace(record, mixture=mixture)))


def test_experts_that_do_not_fit_are_spread() -> None:
    run = config("ellama_8b", *DEEPSEEK, "parallel=single", "slurm.nodes=1")
    with pytest.raises(UserError, match=r"fix: parallel\.expert_parallel_size=4 parallel\.recompute=full, or") as caught:
        plan(run, unprepared(run))
    (problem,) = caught.value.problems
    for option in problem.fix.split(", or "):
        changed = config("ellama_8b", *DEEPSEEK, "parallel=single", "slurm.nodes=1", *option.split(" "))
        record = plan(changed, unprepared(changed))
        assert record.memory["total"] <= changed.cluster.hardware.memory
        assert dict(rows(changed, record))["model"] == "deepseek_v2_lite, 15.7 B parameters, 2.66 B of them for each token"


def test_interleaving_holds_more_in_flight_and_shared_rows_less() -> None:
    """TP8 x PP4 over 80 layers: stage 0 of five chunks waits for 6 + 16 + 1 of 4-layer chunks, not 4 of 20 layers."""
    plain = stage_memory(config("ellama_70b"), 0)["activations"]
    interleaved = stage_memory(config("ellama_70b", "parallel.virtual_pipeline_size=5"), 0)["activations"]
    assert interleaved / plain == pytest.approx(23 / 5 / 4, rel=1e-6)
    shared = stage_memory(config("ellama_70b", "parallel.context_parallel_size=2", "train.global_batch_size=1440", "slurm.nodes=48"), 0)
    assert plain / 2 < shared["activations"] < 0.6 * plain
    assert shared["optimizer"] == stage_memory(config("ellama_70b", "slurm.nodes=48"), 0)["optimizer"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["parallel.recompute=full"],
        ["parallel.virtual_pipeline_size=5"],
        ["parallel.pipeline_parallel_size=10", "parallel.tensor_parallel_size=2", "slurm.nodes=30"],
        [*DEEPSEEK, "parallel.pipeline_parallel_size=3", "parallel.expert_parallel_size=4", "parallel.tensor_parallel_size=2"],
    ],
    ids=["flagship", "recomputed", "chunks", "ten stages", "experts"],
)
def test_the_fullest_rank_is_the_fullest_of_all_stages(overrides: list[str]) -> None:
    """Only three stages are looked at: the first, the second, the last."""
    work = workload(config("ellama_70b", *overrides, "cluster.hardware.memory=800_000_000_000"))
    everyone = [memory_of(work, stage)["total"] for stage in range(work.parallel.pipeline_parallel_size)]
    assert fullest_rank(work)["total"] == max(everyone)
