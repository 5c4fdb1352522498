"""No step is spent on a model that is not the base."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cpt.core.paths import RunPaths
from cpt.core.records import ParityRecord
from tests.ranks import RankFailed, run_ranks
from tests.tiny import make_run, tiny_config, train_rank

pytestmark = pytest.mark.engine


@pytest.fixture
def own_root(root: Path, tmp_path: Path) -> Path:
    """A copy of the root, to be damaged."""
    shutil.copytree(root / "base", tmp_path / "base")
    shutil.copytree(root / "data", tmp_path / "data")
    return tmp_path


def steps_done(run: RunPaths) -> int:
    return sum("train/loss" in line for path in (run.root / "journal").glob("metrics*") for line in path.read_text().splitlines())


def test_the_gap_is_measured_and_kept(root: Path) -> None:
    run = make_run(root, "gate", ["train.train_tokens=512"])
    run_ranks(1, train_rank, run, 0)
    record = ParityRecord.load(run.parity)
    assert record.logit_difference <= record.tolerance == 1e-5
    assert record.engine_loss == pytest.approx(record.base_loss, abs=1e-5)


def test_other_weights_than_the_reference_stop_the_run_before_a_step(own_root: Path) -> None:
    run = make_run(own_root, "tampered", [])
    run_ranks(1, _tamper, own_root / "base" / "tiny" / "model.safetensors")
    with pytest.raises(RankFailed, match=r"step-0 gate: logits of the loaded engine and of the base at .* differ by") as caught:
        run_ranks(1, train_rank, run, 0)
    assert caught.value.kind == "UserError"
    assert steps_done(run) == 0
    assert not run.checkpoints.exists()


def test_weights_that_are_not_numbers_stop_base_and_run(own_root: Path) -> None:
    """Nothing compares with NaN: a gate that asks for `greater than the tolerance` would let it through."""
    run = make_run(own_root, "not-numbers", [])
    run_ranks(1, _not_numbers, own_root / "base" / "tiny" / "model.safetensors")
    with pytest.raises(RankFailed, match=r"logits differ by nan"):
        run_ranks(1, _prepare_base, own_root)
    with pytest.raises(RankFailed, match=r"step-0 gate: logits .* differ by nan"):
        run_ranks(1, train_rank, run, 0)
    assert steps_done(run) == 0


def test_without_a_reference_nothing_starts(own_root: Path) -> None:
    run = make_run(own_root, "no-reference", [])
    (own_root / "base" / "tiny" / "parity_reference.safetensors").unlink()
    with pytest.raises(RankFailed, match="cpt base model=tiny"):
        run_ranks(1, train_rank, run, 0)


def _prepare_base(_world: object, root: Path) -> None:
    from cpt.train.base import prepare_base

    prepare_base(tiny_config(root))


def _not_numbers(_world: object, path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})


def _tamper(_world: object, path: Path) -> None:
    """Swap two norms of equal shape: a bug that a shape check does not see."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    a, b = "model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight"
    tensors[a], tensors[b] = tensors[b], tensors[a]
    save_file(tensors, path, metadata={"format": "pt"})
