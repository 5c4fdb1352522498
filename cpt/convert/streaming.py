"""A forward pass with one layer in memory at a time, whatever the size of the model: transformers' or the engine's.

with without_weights():
    module = <build it>
stream(module, read)
module(...)                      each layer's weights are read just before it runs and dropped after
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import torch

Read = Callable[[str], torch.Tensor]
"""Parameter name -> its values."""


def without_weights() -> AbstractContextManager[None]:
    """Modules built inside keep only the shape of their parameters; buffers, rotary frequencies among them, are real."""
    from accelerate import init_empty_weights

    return cast(AbstractContextManager[None], init_empty_weights(include_buffers=False))


def stream(module: torch.nn.Module, read: Read, device: torch.device, keep: tuple[str, ...] = ()) -> None:
    """Make every layer of `module` fetch its parameters in fp32 to `device` when it is called and drop them when it returns.

    `keep` names modules that stay once they were read: others look at their parameters.
    """
    for name, layer in _layers(module):
        layer.register_forward_pre_hook(_fetch(name, read, device))
        if name not in keep:
            layer.register_forward_hook(_drop)


def _layers(module: torch.nn.Module, prefix: str = "") -> Iterator[tuple[str, torch.nn.Module]]:
    """Entries of the outermost lists, and beside them whatever holds no list: embeddings, final norm, output."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.ModuleList):
            yield from ((f"{prefix}{name}.{number}", layer) for number, layer in child.named_children())
        elif any(isinstance(below, torch.nn.ModuleList) for below in child.modules()):
            yield from _layers(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _fetch(prefix: str, read: Read, device: torch.device) -> Callable[..., None]:
    def fetch(layer: torch.nn.Module, _arguments: Any) -> None:
        for name, _ in list(layer.named_parameters()):
            _assign(layer, name, read(f"{prefix}.{name}").to(device, torch.float32))

    return fetch


def _drop(layer: torch.nn.Module, *_: Any) -> None:
    for name, parameter in list(layer.named_parameters()):
        _assign(layer, name, parameter.to("meta"))


def _assign(layer: torch.nn.Module, name: str, values: torch.Tensor) -> None:
    owner, _, own_name = name.rpartition(".")
    setattr(layer.get_submodule(owner), own_name, torch.nn.Parameter(values, requires_grad=False))
