"""This rank's share of model and optimizer as rectangles of global tensors, which is what makes any layout load any other.

megatron-core's DistributedOptimizer gives each data-parallel rank flat fragments [a, b) of parameters. A fragment of a matrix
is at most three rectangles of it: the tail of a row, whole rows, the head of a row. `sharded_state_dict` says where the local
matrix lies in the model's own (layer, tensor-parallel shard, gate or up of SwiGLU). So every rank saves and loads its own
state alone, and nothing is gathered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from cpt.core.errors import CptError

WEIGHT = "weight."
"""Of tensor names: the fp32 master where the optimizer has one, else what the model holds. The rest is megatron's name."""
_NAMES = {"param": WEIGHT}

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A rectangle of a global tensor, and the memory of this rank that it is saved from or loaded into."""

    name: str
    shape: Shape
    """Of the global tensor."""
    offset: Shape
    data: torch.Tensor
    """A view, whose own shape may lack leading axes of length one."""
    written: bool
    """Whether this rank saves it; others hold the same values."""
    padded: bool = False
    """Whether the global shape depends on the layout (rows of the vocabulary are padded to a multiple of TP)."""

    @property
    def sizes(self) -> Shape:
        """Lengths along the axes of the global tensor."""
        return (1,) * (len(self.shape) - self.data.dim()) + tuple(self.data.shape)


def training_chunks(models: Sequence[Any], optimizer: Any) -> list[Chunk]:
    """Weights and moments of this rank's optimizer shards, and what of the model no optimizer holds (buffers, frozen weights)."""
    found: list[Chunk] = []
    sharded = {id(part.data): part for model in models for part in _parts(model.sharded_state_dict())}
    for one in optimizers(optimizer):
        _create_moments(one)
        for param in one.model_param_gbuf_map:
            if id(param) not in sharded:
                raise CptError(f"checkpoint: the model's sharded_state_dict does not name a parameter of shape {tuple(param.shape)}")
            found.extend(_fragments(one, param, sharded[id(param)]))
    held = {id(param) for one in optimizers(optimizer) for buffer in one.buffers for param in buffer.params}
    return found + [chunk for part in sharded.values() if id(part.data) not in held for chunk in _whole(part)]


def weight_chunks(models: Sequence[Any]) -> list[Chunk]:
    """The model alone, whole parameters, to load into."""
    return [chunk for model in models for part in _parts(model.sharded_state_dict()) for chunk in _whole(part)]


def optimizers(optimizer: Any) -> list[Any]:
    """The DistributedOptimizers in a chain of them that hold anything on this rank."""
    return [one for one in getattr(optimizer, "chained_optimizers", [optimizer]) if not one.is_stub_optimizer]


def rectangles(shape: Shape, start: int, end: int) -> Iterator[tuple[Shape, Shape]]:
    """(offset, sizes) of the rectangles that make up elements [start, end) of a row-major array, in order."""
    if start >= end:
        return
    if len(shape) == 1:
        yield (start,), (end - start,)
        return
    inner = math.prod(shape[1:])
    row, rest = divmod(start, inner)
    if rest or end - start < inner:  # a piece of one row
        stop = min(end, (row + 1) * inner)
        for offset, sizes in rectangles(shape[1:], rest, stop - row * inner):
            yield (row, *offset), (1, *sizes)
    else:
        stop = end // inner * inner
        yield (row, *(0,) * (len(shape) - 1)), (stop // inner - row, *shape[1:])
    yield from rectangles(shape, stop, end)


def _fragments(optimizer: Any, param: Any, part: Any) -> Iterator[Chunk]:
    """Rectangles of the fragment of `param` whose weights and moments this rank updates."""
    owned = optimizer._get_model_param_range_map(param)["param"]
    states = optimizer._get_main_param_and_optimizer_states(param)
    for piece, start in _pieces(part):
        for offset, sizes in rectangles(tuple(piece.local_shape), max(owned.start - start, 0), min(owned.end - start, piece.data.numel())):
            first = start + _flat(piece.local_shape, offset) - owned.start
            for name, values in states.items():
                view = values.view(-1)[first : first + math.prod(sizes)].view(sizes)
                # Whoever has the same parameter at another data-parallel rank owns another fragment: only TP and PP copies are equal.
                yield _chunk(piece, _NAMES.get(name, f"{name}."), offset, view, written=not any(piece.replica_id[:2]))


def _whole(part: Any) -> Iterator[Chunk]:
    for piece, _ in _pieces(part):
        yield _chunk(piece, WEIGHT, (0,) * len(piece.local_shape), piece.data.detach(), written=not any(piece.replica_id))


def _chunk(piece: Any, prefix: str, offset: Shape, data: torch.Tensor, written: bool) -> Chunk:
    inside = (0,) * piece.prepend_axis_num + offset
    place = tuple(base + more for base, more in zip(piece.global_offset, inside, strict=True))
    return Chunk(prefix + piece.key, tuple(piece.global_shape), place, data, written, piece.allow_shape_mismatch)


def _pieces(part: Any) -> list[tuple[Any, int]]:
    """(megatron ShardedTensor, where it begins in the flat parameter). A factory's parts must be contiguous, as gate and up of SwiGLU are."""
    if hasattr(part, "global_offset"):
        return [(part, 0)]
    built = list(_parts(part.build()))
    if not all(piece.data.is_contiguous() and piece.data.untyped_storage().data_ptr() == part.data.untyped_storage().data_ptr() for piece in built):
        raise CptError(f"checkpoint: {part.key} is cut in a way that is no rectangle of memory")
    return [(piece, piece.data.storage_offset() - part.data.storage_offset()) for piece in built]


def _parts(state: Any) -> Iterator[Any]:
    """Tensors and tensor factories in a nested sharded state dict; objects (TE's `_extra_state`) are no tensors and are not kept."""
    if isinstance(state, dict | list):
        yield from chain.from_iterable(map(_parts, state.values() if isinstance(state, dict) else state))
    elif isinstance(getattr(state, "data", None), torch.Tensor) and hasattr(state, "key"):
        yield state


def _flat(shape: Sequence[int], offset: Shape) -> int:
    return sum(position * math.prod(shape[axis + 1 :]) for axis, position in enumerate(offset))


def _create_moments(optimizer: Any) -> None:
    """Before the first update there is nothing to load into; megatron's own way is an update with gradients, and until then a rate, of zero."""
    if not optimizer.optimizer.state:
        steps = [group.get("step") for group in optimizer.optimizer.param_groups]
        optimizer._init_optimizer_states_with_dummy_values()
        for group, step in zip(optimizer.optimizer.param_groups, steps, strict=True):
            group.pop("step", None)
            if step is not None:
                group["step"] = step
