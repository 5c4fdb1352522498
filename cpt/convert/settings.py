"""`config.json` of a base against the `model` section: every field that changes what is computed, in transformers' own reading of it.

transformers knows what a missing field means and how older spellings of it (`rope_scaling`, `rope_theta`) are meant; so both
sides become its config objects, and whatever field of theirs is not known to be harmless must be equal.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

from cpt.config.model import Architecture, ModelConfig, RopeKind
from cpt.core.artifacts import read_json
from cpt.core.errors import Problem

MODEL_TYPES = {
    Architecture.LlamaForCausalLM: "llama",
    Architecture.MistralForCausalLM: "mistral",
    Architecture.Qwen2ForCausalLM: "qwen2",
    Architecture.Qwen3ForCausalLM: "qwen3",
    Architecture.DeepseekV2ForCausalLM: "deepseek_v2",
}
"""By which name transformers finds the classes of a family."""

_FIELDS = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_hidden_size",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_query_groups",
    "head_dim": "kv_channels",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "sliding_window": "sliding_window",
    "rms_norm_eps": "norm_epsilon",
    "tie_word_embeddings": "tied_embeddings",
    "kv_lora_rank": "mla.kv_lora_rank",
    "qk_nope_head_dim": "mla.qk_head_dim",
    "qk_rope_head_dim": "mla.qk_pos_emb_head_dim",
    "v_head_dim": "mla.v_head_dim",
    "n_routed_experts": "moe.num_experts",
    "num_experts_per_tok": "moe.topk",
    "moe_intermediate_size": "moe.ffn_hidden_size",
    "n_shared_experts": "moe.shared_experts",
    "first_k_dense_replace": "moe.dense_layers",
    "routed_scaling_factor": "moe.topk_scaling_factor",
}
"""config.json key -> `model` key."""

_SCALING: dict[RopeKind, tuple[str, ...]] = {
    RopeKind.none: (),
    RopeKind.llama3: ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
    RopeKind.yarn: ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
}
"""What each kind reads of `rope_parameters`, which has the names of `model.rope_scaling`."""

_ROPE_DEFAULTS = {"partial_rotary_factor": 1.0, "attention_factor": None, "truncate": True}
"""Parameters that the engine computes with these values only."""

_NO_ARITHMETIC = {"architectures", "dtype", "transformers_version", "return_dict", "output_hidden_states", "chunk_size_feed_forward", "is_encoder_decoder"}
_NO_WEIGHTS = {"use_cache", "id2label", "label2id", "problem_type", "bos_token_id", "eos_token_id", "pad_token_id"}
_THEIR_TRAINING = {"attention_dropout", "initializer_range", "pretraining_tp"}  # the engine trains without dropout
_OF_GROUPED_ROUTING = {"n_group", "topk_group", "output_router_logits"}  # topk_method must be greedy
_WHERE_THE_WINDOW_IS = {"use_sliding_window", "max_window_layers", "layer_types"}  # no sequence is longer than the window
HARMLESS = _NO_ARITHMETIC | _NO_WEIGHTS | _THEIR_TRAINING | _OF_GROUPED_ROUTING | _WHERE_THE_WINDOW_IS
"""Fields of the config classes that do not change the logits, nor what is trained here."""


def transformers_config(model: ModelConfig) -> Any:
    """The model section as transformers' config object."""
    from transformers import CONFIG_MAPPING

    scaling = model.rope_scaling
    kind = "default" if scaling.kind is RopeKind.none else scaling.kind.value
    rope = {"rope_theta": model.rope_theta, "rope_type": kind} | {name: getattr(scaling, name) for name in _SCALING[scaling.kind]}
    values = {theirs: attrgetter(ours)(model) for theirs, ours in _FIELDS.items()} | {"rope_parameters": rope, "q_lora_rank": None}
    values |= {"sliding_window": model.sliding_window or None, "use_sliding_window": bool(model.sliding_window), "max_window_layers": 0}
    config_class = CONFIG_MAPPING[MODEL_TYPES[model.architecture]]
    known = {field.name for field in dataclasses.fields(config_class)} | {"head_dim"}  # Qwen2 reads it without declaring it
    return config_class(**{name: value for name, value in values.items() if name in known}, architectures=[model.architecture.value])


def disagreements(path: Path, model: ModelConfig) -> Iterator[Problem]:
    """What is not the same in `config.json` at `path` and in the model section, each with the setting that cures it, if one does."""
    raw = read_json(path)
    architecture = (raw.get("architectures") or ["unknown"])[0]
    if architecture != model.architecture.value or raw.get("model_type") != MODEL_TYPES[model.architecture]:
        yield _wrong_family(architecture, model)
        return
    from transformers import AutoConfig

    found, expected = AutoConfig.from_pretrained(path.parent), transformers_config(model)
    if getattr(found, "quantization_config", None):
        yield _refused(path, "quantization_config", found.quantization_config["quant_method"], "no quantization")
    for name in sorted(({field.name for field in dataclasses.fields(found)} | {"head_dim"}) - HARMLESS - {"rope_parameters"}):
        ours, theirs = _value(expected, name), _value(found, name)
        if not _same(theirs, ours):
            yield _differs(f"model.{_FIELDS[name]}", ours, name, theirs) if name in _FIELDS else _refused(path, name, theirs, ours)
    yield from _rope_disagreements(path, dict(found.rope_parameters), dict(expected.rope_parameters), model)


def _rope_disagreements(path: Path, found: dict[str, Any], expected: dict[str, Any], model: ModelConfig) -> Iterator[Problem]:
    theirs, ours = found["rope_type"], expected["rope_type"]
    if theirs not in ("default", *RopeKind):
        yield _refused(path, "rope_type", theirs, "default, llama3")
    elif theirs != ours:
        yield _differs("model.rope_scaling.kind", model.rope_scaling.kind.value, "rope_type", "none" if theirs == "default" else theirs)
    if not _same(found["rope_theta"], model.rope_theta):
        yield _differs("model.rope_theta", model.rope_theta, "rope_theta", found["rope_theta"])
    if theirs == ours:
        for name in _SCALING[model.rope_scaling.kind]:
            if not _same(found.get(name), expected[name]):
                yield _differs(f"model.rope_scaling.{name}", expected[name], name, found.get(name))
    for name, only in _ROPE_DEFAULTS.items():
        if found.get(name, only) != only:
            yield _refused(path, name, found[name], only)


def _value(config: Any, name: str) -> Any:
    """A field as the classes read it."""
    value = getattr(config, name, None)
    if name == "head_dim" and value is None:
        return config.hidden_size // config.num_attention_heads
    return (value or 0) if name == "sliding_window" else value


def _same(found: Any, expected: Any) -> bool:
    """Floats that went through fp32 or text (1e-05 becomes 9.999999747e-06) are the same."""
    if isinstance(expected, float) and isinstance(found, (int, float)):
        return math.isclose(found, expected, rel_tol=1e-6)
    return bool(found == expected)


def _wrong_family(architecture: str, model: ModelConfig) -> Problem:
    works = ", ".join(item.value for item in Architecture)
    fix = f"model.architecture={architecture}, with the fields that go with it" if architecture in works.split(", ") else f"a base of: {works}"
    return Problem(where="model.architecture", what=f"the base is {architecture}", why=f"this config is for {model.architecture}", fix=fix)


def _differs(where: str, ours: Any, name: str, theirs: Any) -> Problem:
    return Problem(where=where, what=f"is {ours}", why=f"the base's config.json says {name}={theirs}", fix=f"{where}={theirs}")


def _refused(path: Path, name: str, theirs: Any, ours: Any) -> Problem:
    return Problem(where=str(path), what=f"{name} is {theirs}", why=f"the engine computes: {ours}", fix=f"another base: one with {name} {ours}")
