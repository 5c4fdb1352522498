"""Weights of a checkpoint -> safetensors shards with an index, a shard in memory at a time, straight from the files.

Neither the model nor the layout that made the checkpoint is built: every engine tensor is read whole, unpacked and written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from cpt.config.model import ModelConfig
from cpt.convert.folder import INDEX
from cpt.convert.streaming import Read
from cpt.convert.table import table, unpack
from cpt.core.artifacts import write_json

Tensors = dict[str, torch.Tensor]


def write_shards(read: Read, model: ModelConfig, folder: Path, shard_bytes: int) -> None:
    """Leave `model-<i>-of-<n>.safetensors` and the index in `folder`, each synced to disk; `read` knows the engine's tensors by name, in the type to write."""
    written: list[tuple[Path, list[str]]] = []
    total = 0
    for number, shard in enumerate(_filled(_tensors(read, model), shard_bytes), start=1):
        path = folder / f"shard-{number}"
        save_file(shard, path, metadata={"format": "pt"})
        _sync(path)
        written.append((path, list(shard)))
        total += sum(tensor.nbytes for tensor in shard.values())
    places = {}
    for number, (path, names) in enumerate(written, start=1):
        final = f"model-{number:05d}-of-{len(written):05d}.safetensors"
        os.replace(path, folder / final)
        places.update(dict.fromkeys(names, final))
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _tensors(read: Read, model: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """All Hugging Face tensors, in the order of the layers; a tied output is not written, as transformers does not."""
    for name, row in table(model).items():
        if name == "output_layer.weight" and model.tied_embeddings:
            continue
        for source, tensor in unpack(row, read(name), model).items():
            yield source, tensor.contiguous()


def _filled(tensors: Iterator[tuple[str, torch.Tensor]], shard_bytes: int) -> Iterator[Tensors]:
    """As many tensors at a time as fit into `shard_bytes`, at least one."""
    shard: Tensors = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
