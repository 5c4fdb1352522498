"""Which Hugging Face tensors make which engine tensor: one table, read in both directions.

Every engine tensor is one or several Hugging Face tensors, each cut into TP equal slices along one dimension and then
packed: q, k, v interleaved by query group; gate and up one below the other. Families differ by a few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from cpt.config.model import ModelConfig

FUSED_NORMS = {
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}
"""A layer's norms -> their names in checkpoints and in Transformer Engine's layers, which count them to the matrix that comes next."""


@dataclass(frozen=True)
class Source:
    """One Hugging Face tensor."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """What one engine tensor is made of. `cut` is the dimension that tensor parallelism cuts; None: every rank holds it whole."""

    sources: tuple[Source, ...]
    cut: int | None = None
    by_group: bool = False
    """Packed by query group: the queries of a group, its key, its value, then the next group."""


def table(model: ModelConfig) -> dict[str, Row]:
    """Engine tensor, its layer counted over the whole model -> what it is made of."""
    rows = _top(model)
    for number in range(model.num_layers):
        for name, row in _layer(model, number).items():
            rows[f"decoder.layers.{number}.{name}"] = row
    return rows


def _top(model: ModelConfig) -> dict[str, Row]:
    words = (model.vocab_size, model.hidden_size)
    embedding = Row((Source("model.embed_tokens.weight", words),), cut=0)
    return {
        "embedding.word_embeddings.weight": embedding,
        "decoder.final_layernorm.weight": Row((Source("model.norm.weight", (model.hidden_size,)),)),
        # Tied, it is the last pipeline stage's copy of the embedding.
        "output_layer.weight": embedding if model.tied_embeddings else Row((Source("lm_head.weight", words),), cut=0),
    }


def _layer(model: ModelConfig, number: int) -> dict[str, Row]:
    def row(*sources: tuple[str, tuple[int, ...]], cut: int | None = None, by_group: bool = False) -> Row:
        return Row(tuple(Source(f"model.layers.{number}.{name}", shape) for name, shape in sources), cut, by_group)

    norm = (model.hidden_size,)
    rows = {"input_layernorm.weight": row(("input_layernorm.weight", norm)), "pre_mlp_layernorm.weight": row(("post_attention_layernorm.weight", norm))}
    rows |= _latent_attention(model, row) if model.mla else _attention(model, row)
    if model.moe and number >= model.moe.dense_layers:
        return rows | _experts(model, row)
    return rows | _feed_forward(model, row, "mlp", "mlp", model.ffn_hidden_size)


def _attention(model: ModelConfig, row: Callable[..., Row]) -> dict[str, Row]:
    hidden, heads, groups = model.hidden_size, model.num_attention_heads * model.kv_channels, model.num_query_groups * model.kv_channels

    def qkv(kind: str, *columns: int) -> Row:
        parts = [(f"self_attn.{letter}_proj.{kind}", (rows, *columns)) for letter, rows in (("q", heads), ("k", groups), ("v", groups))]
        return row(*parts, cut=0, by_group=True)

    rows = {
        "self_attention.linear_qkv.weight": qkv("weight", hidden),
        "self_attention.linear_proj.weight": row(("self_attn.o_proj.weight", (hidden, heads)), cut=1),
    }
    if model.qkv_bias:
        rows["self_attention.linear_qkv.bias"] = qkv("bias")
    if model.qk_norm:
        rows["self_attention.q_layernorm.weight"] = row(("self_attn.q_norm.weight", (model.kv_channels,)))
        rows["self_attention.k_layernorm.weight"] = row(("self_attn.k_norm.weight", (model.kv_channels,)))
    return rows


def _latent_attention(model: ModelConfig, row: Callable[..., Row]) -> dict[str, Row]:
    mla, heads, hidden = model.mla, model.num_attention_heads, model.hidden_size
    down, up = mla.kv_lora_rank + mla.qk_pos_emb_head_dim, heads * (mla.qk_head_dim + mla.v_head_dim)
    return {
        "self_attention.linear_q_proj.weight": row(("self_attn.q_proj.weight", (heads * mla.query_channels, hidden)), cut=0),
        "self_attention.linear_kv_down_proj.weight": row(("self_attn.kv_a_proj_with_mqa.weight", (down, hidden)), cut=0),
        "self_attention.kv_layernorm.weight": row(("self_attn.kv_a_layernorm.weight", (mla.kv_lora_rank,))),
        "self_attention.linear_kv_up_proj.weight": row(("self_attn.kv_b_proj.weight", (up, mla.kv_lora_rank)), cut=0),
        "self_attention.linear_proj.weight": row(("self_attn.o_proj.weight", (hidden, heads * mla.v_head_dim)), cut=1),
    }


def _feed_forward(model: ModelConfig, row: Callable[..., Row], ours: str, theirs: str, width: int, cut: bool = True) -> dict[str, Row]:
    wide, narrow = (width, model.hidden_size), (model.hidden_size, width)
    return {
        f"{ours}.linear_fc1.weight": row((f"{theirs}.gate_proj.weight", wide), (f"{theirs}.up_proj.weight", wide), cut=0 if cut else None),
        f"{ours}.linear_fc2.weight": row((f"{theirs}.down_proj.weight", narrow), cut=1 if cut else None),
    }


def _experts(model: ModelConfig, row: Callable[..., Row]) -> dict[str, Row]:
    """Routed experts are numbered over the whole model, and never cut."""
    moe = model.moe
    rows = {"mlp.router.weight": row(("mlp.gate.weight", (moe.num_experts, model.hidden_size)))}
    rows |= _feed_forward(model, row, "mlp.shared_experts", "mlp.shared_experts", moe.shared_experts * moe.ffn_hidden_size) if moe.shared_experts else {}
    for expert in range(moe.num_experts):
        rows |= _feed_forward(model, row, f"mlp.experts.local_experts.{expert}", f"mlp.experts.{expert}", moe.ffn_hidden_size, cut=False)
    return rows


def pack(row: Row, parts: Sequence[torch.Tensor], model: ModelConfig) -> torch.Tensor:
    """Hugging Face tensors, whole or one TP rank's slices of them -> the engine's tensor."""
    if not row.by_group:
        return torch.cat(list(parts))
    groups = parts[1].shape[0] // model.kv_channels
    grouped = [part.reshape(groups, -1, *part.shape[1:]) for part in parts]
    return torch.cat(grouped, dim=1).flatten(0, 1)


def unpack(row: Row, whole: torch.Tensor, model: ModelConfig) -> dict[str, torch.Tensor]:
    """The engine's tensor at TP1 -> Hugging Face tensors by name: the inverse of `pack`, the vocabulary's padding cut off."""
    if row.by_group:
        sizes = [source.shape[0] // model.num_query_groups for source in row.sources]
        grouped = whole.reshape(model.num_query_groups, sum(sizes), *whole.shape[1:])
        parts = [part.flatten(0, 1) for part in grouped.split(sizes, dim=1)]
    else:
        parts = list(whole[: sum(source.shape[0] for source in row.sources)].split([source.shape[0] for source in row.sources]))
    return {source.name: part for source, part in zip(row.sources, parts, strict=True)}
