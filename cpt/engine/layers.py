"""Norms of gradient, weights and update by part of the model: the same numbers however it is cut.

Taken from the optimizer's own fp32 shards, of which every element is at one data-parallel rank; what tensor-parallel ranks or pipeline stages
hold twice counts once, as in megatron's gradient norm. Sums are fp64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate
from megatron.core.transformer.module import param_is_not_shared

from cpt.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class LayerNorms:
    """Of one part of the model at one update: L2 norms of its whole gradient before clipping, of its weights before, and of what the update added."""

    part: str
    grad_norm: float
    weight_norm: float
    update_norm: float

    @property
    def update_ratio(self) -> float:
        """How much of itself the update changed."""
        return self.update_norm / self.weight_norm if self.weight_norm else 0.0


class LayerWatch:
    """Construct between `compute_gradients` and `update`; `norms` after it. Holds a copy of this rank's master weights meanwhile."""

    @torch.no_grad()
    def __init__(self, engine: Engine) -> None:
        self.parts = part_names(engine.model_config.num_layers)
        self.shards = [(self.parts.index(part), shard) for part, shard in _shards(engine)]
        self.sums = torch.zeros(3, len(self.parts), dtype=torch.float64, device=torch.cuda.current_device())
        for part, shard in self.shards:
            assert shard.grad is not None
            self.sums[0, part] += _square(shard.grad)
            self.sums[1, part] += _square(shard)
        self.before = [shard.detach().clone() for _, shard in self.shards]

    @torch.no_grad()
    def norms(self) -> list[LayerNorms]:
        """Collective; by part, in the order of the model."""
        for (part, shard), before in zip(self.shards, self.before, strict=True):
            self.sums[2, part] += _square(shard - before)
        dist.all_reduce(self.sums)
        return [LayerNorms(part, *values) for part, values in zip(self.parts, self.sums.sqrt().t().tolist(), strict=True)]


def part_names(num_layers: int) -> list[str]:
    """All parts, on whichever rank they are."""
    layers = [f"layer_{layer:03d}.{half}" for layer in range(num_layers) for half in ("attention", "mlp")]
    return ["embedding", *layers, "final_norm", "output"]


def _shards(engine: Engine) -> Iterator[tuple[str, torch.Tensor]]:
    """(part, fp32 master weights of this rank with their gradient) of all that this rank counts."""
    names = {id(param): part for chunk in engine.chunks for part, param in _named(chunk)}
    for one in engine.optimizer.chained_optimizers:
        if one.is_stub_optimizer:
            continue
        for param in one.model_param_gbuf_map:
            shard = one._get_main_param_and_optimizer_states(param)["param"]
            groups = {name: getattr(one, name, None) for name in ("tp_group", "expert_tp_group")}
            if shard.grad is not None and param_is_not_shared(shard) and param_is_not_tensor_parallel_duplicate(shard, **groups):
                yield names[id(param)], shard


def _named(chunk: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, param in chunk.named_parameters():
        words = name.split(".")
        if "layers" in words:
            place = words.index("layers")
            layer = chunk.decoder.layers[int(words[place + 1])].layer_number - 1
            half = "attention" if words[place + 2] in ("self_attention", "input_layernorm") else "mlp"
            yield f"layer_{layer:03d}.{half}", param
        else:
            yield {"embedding": "embedding", "output_layer": "output"}.get(words[0], "final_norm"), param


def _square(tensor: torch.Tensor) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return norm.square()
