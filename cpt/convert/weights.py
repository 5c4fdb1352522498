"""Fill this rank's part of the engine from a Hugging Face folder, reading only the slices it needs.

The engine's global layer number is `layer.layer_number - 1`, right under any pipeline split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from cpt.config.model import ModelConfig
from cpt.convert.folder import BaseFolder
from cpt.convert.table import Row, Source, pack, table, unpack
from cpt.core.artifacts import write_text
from cpt.core.errors import CptError


@torch.no_grad()
def import_weights(chunks: Sequence[Any], model: ModelConfig, folder: BaseFolder) -> None:
    """Every tensor of this rank's model chunks. Raises `CptError` for one that the table does not know."""
    rows = table(model)
    for name, parameter in whole_model_names(chunks):
        if name not in rows:
            raise CptError(f"engine tensor {name} has no Hugging Face counterpart for {model.architecture}")
        parameter.copy_(pack(rows[name], [_read(folder, source, rows[name]) for source in rows[name].sources], model))


def whole_model_names(chunks: Sequence[Any]) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """This rank's parameters under the names that they have where one rank holds the whole model."""
    for gpt in chunks:
        for name, parameter in gpt.named_parameters():
            if match := re.fullmatch(r"decoder\.layers\.(\d+)\.(.+)", name):
                layer = gpt.decoder.layers[int(match.group(1))]
                name = f"decoder.layers.{layer.layer_number - 1}.{_whole_model_expert(layer.mlp, match.group(2))}"
            yield name, parameter


def _whole_model_expert(mlp: Any, name: str) -> str:
    """Expert-parallel ranks number their experts from zero."""
    return re.sub(r"(?<=local_experts\.)\d+", lambda number: str(mlp.local_expert_indices[int(number.group())]), name)


def _read(folder: BaseFolder, source: Source, row: Row) -> torch.Tensor:
    """This TP rank's slice, padded to the length of all the others (the last rows of the vocabulary)."""
    if row.cut is None:
        return folder.slice(source.name)
    from megatron.core import parallel_state  # late: the engine, which this room cannot see, prepares torch before megatron is loaded

    rank, size = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_tensor_model_parallel_world_size()
    length = source.shape[row.cut]
    part = -(-length // size)
    shard = folder.slice(source.name, row.cut, min(length, rank * part), min(length, (rank + 1) * part))
    missing = part - shard.shape[row.cut]
    return torch.nn.functional.pad(shard, (0, 0, 0, missing)) if missing else shard


@torch.no_grad()
def export_weights(chunks: Sequence[Any], model: ModelConfig, folder: Path, dtype: torch.dtype) -> None:
    """Write model.safetensors shards, one per pipeline stage, and their index. Every rank calls it.

    Tensors are gathered over TP one at a time; the first TP and DP rank of each stage writes.
    """
    from megatron.core import parallel_state

    folder.mkdir(parents=True, exist_ok=True)
    stage, stages = parallel_state.get_pipeline_model_parallel_rank(), parallel_state.get_pipeline_model_parallel_world_size()
    writes = parallel_state.get_tensor_model_parallel_rank() == 0 and parallel_state.get_data_parallel_rank() == 0
    file = f"model-{stage + 1:05d}-of-{stages:05d}.safetensors"
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in whole_model_names(chunks):
        row = table(model)[name]
        if name == "output_layer.weight" and model.tied_embeddings:
            continue
        whole = unpack(row, _gather(row, parameter), model)
        if writes:
            tensors.update({source: tensor.to(dtype).contiguous().cpu() for source, tensor in whole.items()})
    if writes:
        save_file(tensors, folder / file, metadata={"format": "pt"})
    _write_index(folder, dict.fromkeys(tensors, file), sum(t.nbytes for t in tensors.values()))


def _write_index(folder: Path, mine: dict[str, str], size: int) -> None:
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (mine, size))
    if dist.get_rank() == 0:
        index = {"metadata": {"total_size": sum(part[1] for part in parts)}, "weight_map": {k: v for part in parts for k, v in part[0].items()}}
        write_text(folder / "model.safetensors.index.json", json.dumps(index, indent=1, sort_keys=True))
    dist.barrier()


def _gather(row: Row, parameter: torch.nn.Parameter) -> torch.Tensor:
    """The tensor as one rank would hold it."""
    from megatron.core import parallel_state

    shard = parameter.detach().contiguous()
    if row.cut is None:
        return shard
    shards = [torch.empty_like(shard) for _ in range(parallel_state.get_tensor_model_parallel_world_size())]
    dist.all_gather(shards, shard, group=parallel_state.get_tensor_model_parallel_group())
    if len(row.sources) == 2:
        return torch.cat([part for halves in zip(*(shard.chunk(2) for shard in shards), strict=True) for part in halves])
    return torch.cat(shards, dim=row.cut)
