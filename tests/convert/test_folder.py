"""The engine answers as transformers does, in every layout, and gives every tensor back unchanged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cpt.core.errors import MissingInput, UserError
from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine

FP32 = "train.precision=fp32"
TP2 = ["slurm.tasks_per_node=2", "parallel.tensor_parallel_size=2"]
TP2_PP2 = ["slurm.tasks_per_node=4", "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2"]
PP2_VP2 = ["slurm.tasks_per_node=2", "parallel.pipeline_parallel_size=2", "parallel.virtual_pipeline_size=2"]
VARIANTS = {
    "tied": [],
    "untied, rope scaling": [
        "model.name=scaled",
        "model.tied_embeddings=false",
        "model.rope_scaling.kind=llama3",
        "model.rope_scaling.factor=8.0",
        "model.max_position_embeddings=16384",
    ],
}


def parity_and_round_trip(world: World, root: Path, overrides: list[str], out: Path) -> float:
    """Largest relative logit difference; the exported folder is left at `out`."""
    import torch

    from cpt import engine
    from cpt.config.training import Precision
    from cpt.convert import BaseFolder, export_weights, import_weights
    from cpt.convert.base import obtain_base
    from cpt.convert.parity import make_reference, read_reference, relative_difference
    from cpt.engine.parallel import agree_on

    config = tiny_config(root, FP32, *overrides)
    folder = config.runs.base(config.model.name)
    engine.initialize(world, config.parallel, config.seed)
    if world.rank == 0:
        obtain_base(config.model, folder)
        make_reference(folder)
    agree_on(0)
    BaseFolder(folder).check(config.model)
    model = engine.Engine(config.model, config.parallel, Precision.fp32)
    import_weights(model.chunks, config.model, BaseFolder(folder))
    reference = read_reference(folder)
    difference = relative_difference(model.logits(reference.tokens.numpy()), reference.logits)
    export_weights(model.chunks, config.model, out, torch.float32)
    return difference


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("size", "layout"), [(1, []), (2, TP2), (4, TP2_PP2), (2, PP2_VP2)], ids=["TP1", "TP2", "TP2 x PP2", "PP2 x VP2"])
def test_exact_logits_and_round_trip(variant: str, size: int, layout: list[str], root: Path, tmp_path: Path) -> None:
    overrides = [*VARIANTS[variant], *layout]
    differences = run_ranks(size, parity_and_round_trip, root, overrides, tmp_path / "out")
    assert max(differences) <= 1e-5
    folder = tiny_config(root, FP32, *overrides).runs.base("scaled" if "untied" in variant else "tiny")
    assert run_ranks(1, _same_tensors, folder, tmp_path / "out") == [[]]


def _same_tensors(_world: World, one: Path, other: Path) -> list[str]:
    """Names of tensors that differ or are missing."""
    import torch

    from cpt.convert import BaseFolder

    a, b = BaseFolder(one), BaseFolder(other)
    names = set(a.tensors) | set(b.tensors)
    return [name for name in sorted(names) if not torch.equal(a.slice(name), b.slice(name))]


def test_a_vocabulary_that_does_not_divide_is_padded_and_cut_again(root: Path, tmp_path: Path) -> None:
    overrides = ["model.name=odd", "model.vocab_size=2049", *TP2]
    assert max(run_ranks(2, parity_and_round_trip, root, overrides, tmp_path / "out")) <= 1e-5
    assert run_ranks(1, _same_tensors, tiny_config(root, FP32, *overrides).runs.base("odd"), tmp_path / "out") == [[]]


def test_another_model_section_is_refused_with_every_difference(root: Path) -> None:
    from cpt.convert import BaseFolder

    wrong = tiny_config(root, "model.num_layers=2", "model.rope_theta=5000.0").model
    with pytest.raises(UserError) as caught:
        BaseFolder(root / "base" / "tiny").check(wrong)
    assert [(p.where, p.fix) for p in caught.value.problems] == [
        ("model.num_layers", "model.num_layers=4"),
        ("model.rope_theta", "model.rope_theta=10000.0"),
    ]


def test_an_unknown_architecture_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    from cpt.convert import BaseFolder

    folder = tmp_path / "bert"
    shutil.copytree(root / "base" / "tiny", folder)
    settings = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"model.architecture: the base is BertModel") as caught:
        BaseFolder(folder).check(tiny_config(root).model)
    assert "LlamaForCausalLM" in caught.value.problems[0].fix


def test_a_base_without_weights_is_refused(root: Path, tmp_path: Path) -> None:
    from cpt.convert import BaseFolder

    shutil.copy(root / "base" / "tiny" / "config.json", tmp_path)
    with pytest.raises(MissingInput, match=r"model\.safetensors: not found"):
        BaseFolder(tmp_path).check(tiny_config(root).model)
