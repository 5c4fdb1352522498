"""Which Hugging Face tensors make which engine tensor, cut for tensor parallelism: one table, read in both directions.

Every engine tensor is one or several Hugging Face tensors, each cut into TP equal slices along one dimension and then
packed: q, k, v interleaved by query group; gate and up one below the other. The engine's global layer number is
`layer.layer_number - 1`, right under any pipeline split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from cpt.config.model import ModelConfig
from cpt.convert.folder import BaseFolder
from cpt.core.artifacts import write_text
from cpt.core.errors import CptError

_LAYER = {
    "input_layernorm.weight": (("input_layernorm.weight",), None),
    "self_attention.linear_qkv.weight": (("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"), 0),
    "self_attention.linear_proj.weight": (("self_attn.o_proj.weight",), 1),
    "pre_mlp_layernorm.weight": (("post_attention_layernorm.weight",), None),
    "mlp.linear_fc1.weight": (("mlp.gate_proj.weight", "mlp.up_proj.weight"), 0),
    "mlp.linear_fc2.weight": (("mlp.down_proj.weight",), 1),
}
_TOP = {
    "embedding.word_embeddings.weight": (("model.embed_tokens.weight",), 0),
    "decoder.final_layernorm.weight": (("model.norm.weight",), None),
    "output_layer.weight": (("lm_head.weight",), 0),
}
"""Engine name -> (Hugging Face names, the dimension that tensor parallelism cuts)."""


@dataclass(frozen=True)
class Entry:
    """One engine tensor of this rank and where it comes from."""

    name: str
    parameter: torch.nn.Parameter
    sources: tuple[str, ...]
    dim: int | None


def entries(gpt: Any, model: ModelConfig) -> Iterator[Entry]:
    """All tensors of this rank's part of the model. Raises `CptError` for one that the table does not know."""
    for name, parameter in gpt.named_parameters():
        if match := re.fullmatch(r"decoder\.layers\.(\d+)\.(.+)", name):
            number = gpt.decoder.layers[int(match.group(1))].layer_number - 1
            known = _LAYER.get(match.group(2))
            sources = tuple(f"model.layers.{number}.{source}" for source in known[0]) if known else ()
        else:
            known = _TOP.get(name)
            sources = known[0] if known else ()
        if known is None:
            raise CptError(f"engine tensor {name} has no Hugging Face counterpart for {model.architecture}")
        if name == "output_layer.weight" and model.tied_embeddings:
            sources = _TOP["embedding.word_embeddings.weight"][0]  # the last stage's copy
        yield Entry(name, parameter, sources, known[1])


@torch.no_grad()
def import_weights(gpt: Any, model: ModelConfig, folder: BaseFolder) -> None:
    """Fill this rank's part of the model from a Hugging Face folder, reading only the slices it needs."""
    for entry in entries(gpt, model):
        shards = [_read(folder, source, entry.dim, model) for source in entry.sources]
        entry.parameter.copy_(_pack(entry, shards, model))


@torch.no_grad()
def export_weights(gpt: Any, model: ModelConfig, folder: Path, dtype: torch.dtype) -> None:
    """Write model.safetensors shards, one per pipeline stage, and their index. Every rank calls it.

    Tensors are gathered over TP one at a time; the first TP and DP rank of each stage writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parallel = _parallel_state()
    stage, stages = parallel.get_pipeline_model_parallel_rank(), parallel.get_pipeline_model_parallel_world_size()
    writes = parallel.get_tensor_model_parallel_rank() == 0 and parallel.get_data_parallel_rank() == 0
    file = f"model-{stage + 1:05d}-of-{stages:05d}.safetensors"
    tensors = {}
    for entry in entries(gpt, model):
        if entry.name == "output_layer.weight" and model.tied_embeddings:
            continue
        whole = _gather(entry, model)
        if writes:
            tensors.update({name: tensor.to(dtype).contiguous().cpu() for name, tensor in whole.items()})
    if writes:
        save_file(tensors, folder / file, metadata={"format": "pt"})
    _write_index(folder, dict.fromkeys(tensors, file), sum(t.nbytes for t in tensors.values()))


def _parallel_state() -> Any:
    """Imported late: the engine, which this room cannot see, prepares torch before megatron is loaded."""
    from megatron.core import parallel_state

    return parallel_state


def _write_index(folder: Path, mine: dict[str, str], size: int) -> None:
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (mine, size))
    if dist.get_rank() == 0:
        index = {"metadata": {"total_size": sum(part[1] for part in parts)}, "weight_map": {k: v for part in parts for k, v in part[0].items()}}
        write_text(folder / "model.safetensors.index.json", json.dumps(index, indent=1, sort_keys=True))
    dist.barrier()


def _read(folder: BaseFolder, source: str, dim: int | None, model: ModelConfig) -> torch.Tensor:
    if dim is None:
        return folder.slice(source)
    length = _length(source, model, dim)
    parallel = _parallel_state()
    rank, size = parallel.get_tensor_model_parallel_rank(), parallel.get_tensor_model_parallel_world_size()
    part = -(-length // size)
    shard = folder.slice(source, dim, rank * part, min(length, (rank + 1) * part))
    missing = part - shard.shape[dim]  # the vocabulary's pad on the last rank
    return torch.nn.functional.pad(shard, (0, 0, 0, missing)) if missing else shard


def _length(source: str, model: ModelConfig, dim: int) -> int:
    """Size of a Hugging Face tensor along the cut dimension."""
    heads, groups = model.num_attention_heads * model.kv_channels, model.num_query_groups * model.kv_channels
    sizes = {"q_proj": heads, "k_proj": groups, "v_proj": groups, "o_proj": heads, "embed_tokens": model.vocab_size, "lm_head": model.vocab_size}
    return sizes.get(source.split(".")[-2], model.ffn_hidden_size)


def _pack(entry: Entry, shards: list[torch.Tensor], model: ModelConfig) -> torch.Tensor:
    """Hugging Face slices of one TP rank -> its engine tensor."""
    if not entry.name.endswith("linear_qkv.weight"):
        return torch.cat(shards)
    groups = shards[1].shape[0] // model.kv_channels
    return torch.cat([shard.reshape(groups, -1, shard.shape[-1]) for shard in shards], dim=1).reshape(-1, shards[0].shape[-1])


def _unpack(entry: Entry, shard: torch.Tensor, model: ModelConfig) -> list[torch.Tensor]:
    """The inverse of `_pack`."""
    if entry.name.endswith("linear_fc1.weight"):
        return list(shard.chunk(2))
    if not entry.name.endswith("linear_qkv.weight"):
        return [shard]
    queries = model.num_attention_heads // model.num_query_groups * model.kv_channels
    grouped = shard.reshape(-1, queries + 2 * model.kv_channels, shard.shape[-1])
    parts = grouped.split([queries, model.kv_channels, model.kv_channels], dim=1)
    return [part.reshape(-1, shard.shape[-1]) for part in parts]


def _gather(entry: Entry, model: ModelConfig) -> dict[str, torch.Tensor]:
    """Whole Hugging Face tensors from all TP ranks."""
    shard = entry.parameter.detach().contiguous()
    if entry.dim is None:
        return {entry.sources[0]: shard}
    parallel = _parallel_state()
    shards = [torch.empty_like(shard) for _ in range(parallel.get_tensor_model_parallel_world_size())]
    dist.all_gather(shards, shard, group=parallel.get_tensor_model_parallel_group())
    columns = zip(*(_unpack(entry, s, model) for s in shards), strict=True)
    whole = (torch.cat(parts, dim=entry.dim) for parts in columns)
    return {source: tensor.narrow(entry.dim, 0, _length(source, model, entry.dim)) for source, tensor in zip(entry.sources, whole, strict=True)}
