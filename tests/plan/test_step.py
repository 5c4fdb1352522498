"""What a step's time is made of, by hand on cases where each part can be worked out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.plan import traffic
from cpt.plan.flops import flops_per_token
from cpt.plan.step import PARTS, step_seconds
from cpt.plan.workload import Program, Workload, workload


def work(*overrides: str) -> Workload:
    return workload(config(*overrides))


def config(*overrides: str) -> RunConfig:
    return compose_config(["experiment=ellama_70b", *overrides])


def test_parts_add_up() -> None:
    step = step_seconds(work())
    assert step["total"] == pytest.approx(sum(step[part] for part in PARTS))
    assert set(step) == {*PARTS, "total"}


def test_products_are_the_flops_of_the_matrices_at_the_measured_rate() -> None:
    """Without attention (a row of one token sees one) a step's products are all of its FLOPs over all ranks."""
    base = work("parallel=single", "slurm.nodes=60", "parallel.recompute=full")
    step, hardware = step_seconds(base), base.hardware
    flops = flops_per_token(base.model, 0) - 6 * base.model.hidden_size * base.model.vocab_size
    rate = base.rates.bf16_efficiency * hardware.peak_flops * base.world_size
    assert step["products"] == pytest.approx(base.global_batch_size * base.sequence_length * flops / rate, rel=1e-9)


def test_full_recompute_costs_a_forward_pass() -> None:
    plain, full = (step_seconds(work("parallel=tp8_pp4", f"parallel.recompute={how}")) for how in ("none", "full"))
    assert full["products"] == plain["products"]
    ahead = plain["products"] / 3 + plain["attention"] / 3.5
    assert full["recompute"] == pytest.approx(ahead, rel=0.05), "and what is streamed between"
    half = step_seconds(work("parallel.recompute=full", "parallel.recompute_layers=10"))
    assert half["recompute"] == pytest.approx(full["recompute"] / 2)


def test_chunks_divide_the_bubble() -> None:
    """(p - 1) / m of the work, over the number of chunks (Narayanan et al. 2021)."""
    plain, chunked = step_seconds(work()), step_seconds(work("parallel.virtual_pipeline_size=5"))
    inside = sum(plain[part] for part in ("products", "attention", "memory", "tensor"))
    assert plain["bubble"] == pytest.approx(inside * 3 / 96, rel=0.01)
    assert chunked["bubble"] == pytest.approx(plain["bubble"] / 5, rel=0.05)


def test_a_ring_moves_all_but_one_part() -> None:
    base = work()
    assert traffic.ring(1e9, 1, base, 1) == 0.0
    inside = traffic.ring(8e9, 8, base, 8)
    assert inside == pytest.approx(7e9 / (450e9 * traffic.NODE) + 7 * 5e-6)
    crossing = traffic.ring(8e9, 16, base, 8)
    assert crossing == pytest.approx(15 / 16 * 8e9 / min(450e9 * traffic.NODE, 8 * 50e9 * traffic.NETWORK) + 8 * 12e-6)
    assert traffic.ring(8e9, 15, base, 1) == pytest.approx(14 / 15 * 8e9 / (50e9 * traffic.NETWORK) + 14 * 12e-6)


def test_tensor_parallelism_across_nodes_is_paid_for() -> None:
    """Sixteen ranks of two nodes share one matrix: the network's rate, not NVLink's."""
    one = work("parallel.tensor_parallel_size=8")
    two = replace(one, node_ranks=4)
    assert traffic.tensor(two) > 1.5 * traffic.tensor(one)


def test_a_program_that_hides_transfers_waits_for_first_pieces_only() -> None:
    base = work()
    hidden = replace(base, program=Program(hides_tensor=True))
    assert traffic.tensor(hidden) == pytest.approx(traffic.tensor(base) * 8 / 8 / 6)


def test_gradients_hide_behind_one_backward_pass_and_no_more() -> None:
    """On this network they take longer than the last micro-batch's pass; ten times faster only first and last bucket are waited for."""
    overlap = ("parallel.overlap_grad_reduce", "parallel.overlap_param_gather")
    hidden, bare = (step_seconds(work(*(f"{name}={on}" for name in overlap)))["data"] for on in ("true", "false"))
    parameters = 2.2708e9
    assert bare == pytest.approx(14 / 15 * parameters * (4 + 2) / (50e9 * traffic.NETWORK), rel=0.01)
    assert 0.05 * bare < hidden < 0.4 * bare
    fast = "cluster.hardware.network_bandwidth=500e9"
    hidden, bare = (step_seconds(work(fast, *(f"{name}={on}" for name in overlap)))["data"] for on in ("true", "false"))
    assert hidden == pytest.approx(0.05 * bare)


def test_experts_pay_for_the_way_to_them() -> None:
    overrides = ["model=deepseek_v2_lite", "parallel=single", "slurm.nodes=3", "train.global_batch_size=1440"]
    alone = step_seconds(work(*overrides))
    spread = step_seconds(work(*overrides, "parallel.expert_parallel_size=8"))
    assert alone["experts"] == 0.0 < spread["experts"]
    assert alone["products"] == spread["products"]


def test_fp8_speeds_up_the_layers_and_not_the_logits() -> None:
    """0.527 of twice the peak against 0.640 of it."""
    base = work()
    eight = replace(base, fp8=True)
    plain, fast = step_seconds(base), step_seconds(eight)
    assert plain["products"] / fast["products"] == pytest.approx(1979 / 989 * 0.527 / 0.640, rel=0.001)
    assert fast["logits"] == plain["logits"]
    assert fast["memory"] > plain["memory"], "values are cast"
