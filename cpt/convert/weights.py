"""Fill this rank's part of the engine from a Hugging Face folder, reading only the slices it needs.

The engine's global layer number is `layer.layer_number - 1`, right under any pipeline split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from cpt.config.model import ModelConfig
from cpt.convert.folder import BaseFolder
from cpt.convert.table import FUSED_NORMS, Row, Source, pack, table
from cpt.core.errors import CptError

_OWN_NORMS = {fused: own for own, fused in FUSED_NORMS.items()}


@torch.no_grad()
def import_weights(chunks: Sequence[Any], model: ModelConfig, folder: BaseFolder) -> None:
    """Every tensor of this rank's model chunks. Raises `CptError` for one that the table does not know."""
    rows = table(model)
    for name, parameter in whole_model_names(chunks):
        if name not in rows:
            raise CptError(f"engine tensor {name} has no Hugging Face counterpart for {model.architecture}")
        parameter.copy_(pack(rows[name], [_read(folder, source, rows[name]) for source in rows[name].sources], model))


def whole_model_names(chunks: Sequence[Any]) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """This rank's parameters under the names that they have where one rank holds the whole model, norms apart from the matrix behind them."""
    for gpt in chunks:
        for name, parameter in gpt.named_parameters():
            if match := re.fullmatch(r"decoder\.layers\.(\d+)\.(.+)", name):
                layer = gpt.decoder.layers[int(match.group(1))]
                own = _OWN_NORMS.get(match.group(2), match.group(2))
                name = f"decoder.layers.{layer.layer_number - 1}.{_whole_model_expert(layer.mlp, own)}"
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
