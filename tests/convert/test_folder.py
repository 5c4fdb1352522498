"""What a base folder must be like: anything else is refused by name before an engine is built."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from cpt.config.model import Architecture
from cpt.core.errors import MissingInput, UserError
from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine


def test_another_model_section_is_refused_with_every_difference(root: Path) -> None:
    from cpt.convert import BaseFolder

    wrong = tiny_config(root, "model.num_layers=2", "model.rope_theta=5000.0").model
    with pytest.raises(UserError) as caught:
        BaseFolder(root / "base" / "tiny").check(wrong)
    assert [(p.where, p.fix) for p in caught.value.problems] == [
        ("model.num_layers", "model.num_layers=4"),
        ("model.rope_theta", "model.rope_theta=10000.0"),
    ]


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base, to be changed."""
    return Path(shutil.copytree(root / "base" / "tiny", tmp_path / "changed"))


def change(folder: Path, **settings: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value != "absent"}))


def problems(folder: Path, *overrides: str) -> list[str]:
    """What `check` says against the tiny model section, one line a problem."""
    from cpt.convert import BaseFolder

    try:
        BaseFolder(folder).check(tiny_config(folder, *overrides).model)
    except UserError as error:
        return [f"{Path(p.where).name}: {p.what}; {p.why}; {p.fix}" for p in error.problems]
    return []


def test_an_unknown_architecture_is_refused_with_those_that_work(folder: Path) -> None:
    change(folder, architectures=["BertModel"], model_type="bert")
    found = problems(folder)
    assert len(found) == 1
    assert found[0].startswith("model.architecture: the base is BertModel")
    for name in Architecture:
        assert name.value in found[0]


def test_another_family_that_works_is_asked_for_by_its_name(folder: Path) -> None:
    change(folder, architectures=["Qwen3ForCausalLM"], model_type="qwen3")
    assert problems(folder)[0].endswith("model.architecture=Qwen3ForCausalLM, with the fields that go with it")


REFUSED = {
    "hidden_act": "gelu",
    "attention_bias": True,
    "mlp_bias": True,
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "rope_type": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0},
    "partial_rotary_factor": {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.5},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_engine_cannot_compute_is_refused_by_name(name: str, folder: Path) -> None:
    change(folder, **{"rope_parameters" if name in ("rope_type", "partial_rotary_factor") else name: REFUSED[name]})
    found = problems(folder)
    assert len(found) == 1
    assert found[0].startswith(f"config.json: {name} is")


def test_both_spellings_of_transformers_mean_the_same(folder: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256}
    change(folder, rope_parameters="absent", rope_theta=500000.0, rope_scaling=scaling)
    section = ["model.rope_theta=500000.0", "model.rope_scaling.kind=llama3", "model.rope_scaling.factor=8.0"]
    length = "model.rope_scaling.original_max_position_embeddings=256"
    assert problems(folder, *section, length) == []
    assert problems(folder, *section) == [
        "model.rope_scaling.original_max_position_embeddings: is 8192; the base's config.json says original_max_position_embeddings=256; " + length
    ]
    assert [line.split(":")[0] for line in problems(folder)] == ["model.rope_scaling.kind", "model.rope_theta"]


def test_missing_fields_mean_what_transformers_takes_them_for(folder: Path) -> None:
    change(folder, head_dim="absent", num_key_value_heads=None)
    assert [line.split(";")[2] for line in problems(folder)] == [" model.kv_channels=8", " model.num_query_groups=8"]


def test_a_window_shorter_than_the_sequences_is_refused(folder: Path) -> None:
    mistral = ["model.architecture=MistralForCausalLM", "model.sliding_window=4096"]
    change(folder, architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=4096)
    assert problems(folder, *mistral) == []
    assert [line.split(":")[0] for line in problems(folder, mistral[0])] == ["model.sliding_window"]
    with pytest.raises(UserError, match=r"(?s)train.sequence_length: is 64.*fix: train.sequence_length=32"):
        tiny_config(folder, mistral[0], "model.sliding_window=32")


@pytest.mark.parametrize("architecture", Architecture)
def test_every_field_of_transformers_is_compared_or_known_to_be_harmless(architecture: Architecture) -> None:
    """A field that a later transformers adds is compared by itself; one that it drops must leave the list."""
    from transformers import CONFIG_MAPPING

    from cpt.convert.settings import HARMLESS, MODEL_TYPES

    declared = {field.name for kind in MODEL_TYPES.values() for field in dataclasses.fields(CONFIG_MAPPING[kind])}
    assert declared >= HARMLESS
    assert CONFIG_MAPPING[MODEL_TYPES[architecture]]


WEIGHTS = {
    "missing": "model.norm.weight is missing",
    "unknown": "model.layers.0.self_attn.q_proj.bias is not known",
    "shape": "model.norm.weight has shape [63]",
    "type": "model.norm.weight is I32",
    "cut": "cannot be read",
}


@pytest.mark.parametrize("damage", WEIGHTS)
def test_damaged_weights_are_refused_by_name(damage: str, folder: Path) -> None:
    run_ranks(1, _damage, folder / "model.safetensors", damage)
    found = problems(folder)
    assert len(found) == 1
    assert WEIGHTS[damage] in found[0]


def _damage(_world: World, path: Path, damage: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    norm = "model.norm.weight"
    if damage == "missing":
        del tensors[norm]
    elif damage == "unknown":
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(128)
    elif damage == "shape":
        tensors[norm] = tensors[norm][:63].clone()
    elif damage == "type":
        tensors[norm] = tensors[norm].to(torch.int32)
    save_file(tensors, path)
    if damage == "cut":
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size // 2)


def test_a_shard_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert problems(folder)[0].startswith("model-00001-of-00002.safetensors: not found; the index promises")


def test_old_llamas_carry_their_frequencies_and_tied_bases_may_carry_a_copy(folder: Path) -> None:
    run_ranks(1, _add_copies, folder / "model.safetensors", 0.0)
    assert problems(folder) == []
    run_ranks(1, _add_copies, folder / "model.safetensors", 1.0)
    assert "lm_head.weight is not known" in problems(folder)[0]


def _add_copies(_world: World, path: Path, other: float) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + other
    save_file(tensors, path)


def test_a_base_without_weights_is_refused(root: Path, tmp_path: Path) -> None:
    from cpt.convert import BaseFolder

    shutil.copy(root / "base" / "tiny" / "config.json", tmp_path)
    with pytest.raises(MissingInput, match=r"model\.safetensors: not found"):
        BaseFolder(tmp_path).check(tiny_config(root).model)
