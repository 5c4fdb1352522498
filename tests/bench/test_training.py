"""The comparison runs for real on a tiny model, and refuses to compare different work."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.bench.figures import Figures
from cpt.bench.training import OPTIONS, Measured, opponents_of, require_same_work, run
from cpt.config.compose import compose_config
from cpt.core.errors import CptError, UserError
from cpt.plan.flops import flops_per_token

QUICK = {**OPTIONS, "steps": "1", "pairs": "1", "against": "eager", "threads": "1"}
TINY = ["model=tiny", "model.num_layers=2", "corpus=sample", "train.sequence_length=32", "cluster=local"]


def measured(tmp: Path, *overrides: str, **options: str) -> Figures:
    return run({**QUICK, **options}, [*TINY, f"run_root={tmp}", *overrides], print)


@pytest.mark.engine
@pytest.mark.slow
def test_both_do_the_same_work_and_are_held_against_the_same_peak(tmp_path: Path) -> None:
    found = measured(tmp_path, profile="true")
    ours, theirs = (found.data["contestants"][kind] for kind in ("ours", "eager"))
    assert ours["first_losses"] == pytest.approx(theirs["first_losses"], rel=1e-5)
    assert theirs["ours_over_theirs"] == pytest.approx(theirs["seconds"][0] / ours["seconds"][0])
    for one in (ours, theirs):
        assert set(one["phases"]) == {"data", "forward", "backward", "optimizer", "other"} and all(seconds > 0 for seconds in one["phases"].values())
        assert one["mfu_causal"] < one["mfu_whole_attention"] and one["memory"] > 1e8
        assert one["flops_causal"] / found.data["matmul_peak_flops"] == pytest.approx(one["mfu_causal"])
    assert "aten::mm" in "".join(found.notes)


@pytest.mark.engine
@pytest.mark.slow
def test_bf16_is_compared_with_fsdp_over_fp32_masters(tmp_path: Path) -> None:
    found = measured(tmp_path, "train.precision=bf16", "slurm.tasks_per_node=2", "train.micro_batch_size=2")
    ours, theirs = (found.data["contestants"][kind] for kind in ("ours", "eager"))
    assert ours["first_losses"] == pytest.approx(theirs["first_losses"], rel=2e-3)


@pytest.mark.gpu
@pytest.mark.slow
def test_an_8b_shaped_stack_reaches_half_of_the_cards_peak_and_beats_fsdp(tmp_path: Path) -> None:
    overrides = ["model=llama31_8b", "model.num_layers=4", "train.precision=bf16", "train.sequence_length=8192", "train.micro_batch_size=1"]
    found = run({**QUICK, "pairs": "5", "steps": "3"}, [*overrides, "train.global_batch_size=4", "train.train_tokens=10000000", f"run_root={tmp_path}"], print)
    ours, theirs = (found.data["contestants"][kind] for kind in ("ours", "eager"))
    assert ours["mfu_causal"] >= 0.5
    assert theirs["ours_over_theirs"] > 1


def test_other_losses_are_other_work() -> None:
    config = compose_config(["train.precision=fp32", "train.train_tokens=100000"])
    found = {"ours": Measured(first_losses=[5.0, 4.9]), "eager": Measured(first_losses=[5.0, 4.8])}
    with pytest.raises(CptError, match="not the same work"):
        require_same_work(found, config)
    require_same_work({**found, "eager": Measured(first_losses=[5.0001, 4.9])}, config)


def test_who_can_be_compared() -> None:
    assert opponents_of({"against": "eager,compiled"}) == ["eager", "compiled"] and opponents_of({"against": ""}) == []
    with pytest.raises(UserError, match="against"):
        opponents_of({"against": "eager,megatron"})


def test_flops_conventions_differ_by_the_masked_half_of_attention() -> None:
    model = compose_config(["model=llama31_8b", "train.train_tokens=100000"]).model
    causal, whole = (flops_per_token(model, 8192, whole_attention=way) for way in (False, True))
    assert whole - causal == 3 * model.num_layers * 2 * 8192 * model.kv_channels * model.num_attention_heads
