"""The engine's own logits with one layer in memory at a time, for bases and checkpoints of any size.

One process, TP1 and fp32 whatever the run's layout; weights come from a Hugging Face folder or straight from a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

from cpt.checkpoint.chunks import WEIGHT
from cpt.checkpoint.reader import CheckpointReader
from cpt.config.model import ModelConfig
from cpt.config.parallel import ParallelConfig
from cpt.config.training import Precision
from cpt.convert import BaseFolder
from cpt.convert.streaming import Read, stream, without_weights
from cpt.convert.table import FUSED_NORMS, pack, table
from cpt.core.world import World
from cpt.engine import finalize, initialize
from cpt.engine.attention import PLAIN
from cpt.engine.model import build_chunks


@torch.no_grad()
def engine_logits(model: ModelConfig, read: Read, tokens: torch.Tensor) -> torch.Tensor:
    """fp32 logits [1, s, v] of tokens [1, s]; `read` knows the engine's tensors by name. Joins a world of one and leaves it."""
    initialize(World(), ParallelConfig(), seed=0)
    try:
        with without_weights():
            gpt = build_chunks(model, ParallelConfig(), Precision.fp32, PLAIN)[0].eval()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        stream(gpt, read, device, keep=("embedding",) if model.tied_embeddings else ())
        positions = torch.arange(tokens.shape[1], device=device)[None]
        logits: torch.Tensor = gpt(tokens.to(device), positions, None)
        return logits[..., : model.vocab_size].float().cpu()
    finally:
        finalize()


def from_folder(folder: BaseFolder, model: ModelConfig) -> Read:
    """The engine's tensors, made of a Hugging Face folder's."""
    rows = table(model)

    def read(name: str) -> torch.Tensor:
        return pack(rows[name], [folder.slice(source.name) for source in rows[name].sources], model)

    return read


def from_checkpoint(reader: CheckpointReader, dtype: torch.dtype) -> Read:
    """The engine's tensors, rounded to `dtype` from the fp32 masters as in training; padding of the vocabulary included."""

    def read(name: str) -> torch.Tensor:
        stored, index = next((place for place in _places(WEIGHT + name) if place[0] in reader.tensors), (WEIGHT + name, ()))
        inner = reader.shape(stored)[len(index) :]
        part = reader.read(stored, (*index, *(0,) * len(inner)), ((1,) * len(index)) + inner)
        return part.reshape(inner).to(dtype)

    return read


def _places(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Where megatron-core may have put a tensor: key and index. Experts have an axis, and so have layers that are all alike."""
    layer = re.fullmatch(r"(.*decoder\.layers)\.(\d+)\.(.+)", name)
    if not layer:
        yield name, ()
        return
    layers, number, own = layer.group(1), int(layer.group(2)), layer.group(3)
    expert = tuple(int(found) for found in re.findall(r"local_experts\.(\d+)", own))
    own = re.sub(r"local_experts\.\d+", "experts", own)
    for stored in (own, FUSED_NORMS.get(own, own)):
        yield f"{layers}.{stored}", (number, *expert)
        yield f"{layers}.{number}.{stored}", expert
