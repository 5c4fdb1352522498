"""Answer megatron-core's torch.cuda calls with the CPU, so that TP x PP x DP runs over gloo. A no-op where CUDA exists.

One function, no TorchFunctionMode (it costs on every operation and is thread-local). Must run before megatron is imported.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.utils._device as torch_device


class _Null:
    """Stands in for streams and events: every call does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __enter__(self) -> _Null:
        return self

    def __exit__(self, *args: Any) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Any) -> float:
        return 0.0

    def record_event(self, *args: Any) -> _Null:
        return _Null()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def install() -> None:
    """Patch torch.cuda, `Tensor.cuda`, `Tensor.type` and the factories that are given a CUDA device."""
    if torch.cuda.is_available() or getattr(torch.cuda, "_cpu_shim", False):
        return
    if "megatron.core" in sys.modules:
        raise RuntimeError("import cpt.engine before megatron: parts of it would keep torch's own CUDA calls")
    torch.cuda._cpu_shim = True  # type: ignore[attr-defined]
    _patch_cuda_module(torch.cuda)
    _patch_tensors()
    _patch_factories()
    _patch_megatron()


def _patch_cuda_module(cuda: Any) -> None:
    device = torch.device("cpu")
    cuda.current_device = lambda: device
    cuda.device_count = lambda: 1
    for name in ("set_device", "synchronize", "empty_cache", "set_stream", "reset_peak_memory_stats"):
        setattr(cuda, name, lambda *args, **kwargs: None)
    cuda.Stream = cuda.Event = _Null
    cuda.current_stream = cuda.default_stream = lambda *args, **kwargs: _Null()
    cuda.stream = lambda *args, **kwargs: contextlib.nullcontext()
    # Not torch.manual_seed: that one calls manual_seed_all, which would come back here.
    cuda.manual_seed = lambda seed: torch.default_generator.manual_seed(int(seed))
    cuda.manual_seed_all = lambda seed: None
    for module in (cuda, cuda.random):
        module.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
        module.set_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)


def _patch_tensors() -> None:
    tensor: Any = torch.Tensor
    tensor.cuda = lambda self, *args, **kwargs: self
    torch.nn.Module.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]
    original = tensor.type

    def type_of(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The optimizers compare `p.type()` with 'torch.cuda.*Tensor'."""
        if args or kwargs:
            return original(self, *args, **kwargs)
        return "torch.cuda." + str(original(self)).rsplit(".", 1)[1]

    tensor.type = type_of


def _patch_factories() -> None:
    # Cache the originals first, or `with torch.device("meta")` stops working and transformers loads garbage.
    torch_device._device_constructors()
    for name in ("zeros", "ones", "empty", "full", "tensor", "arange", "empty_like", "zeros_like"):
        setattr(torch, name, _to_cpu(getattr(torch, name)))


def _to_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if str(kwargs.get("device")).startswith("cuda"):
            kwargs["device"] = "cpu"
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        return function(*args, **kwargs)

    return wrapped


def _patch_megatron() -> None:
    # megatron decorates its fusions with torch.compile at import; on a CPU none is used, and the compiler takes seconds to import.
    compiler, torch.compile = torch.compile, lambda function=None, **_: function or (lambda inner: inner)  # type: ignore[assignment]
    import megatron.core.tensor_parallel.random as megatron_random
    import megatron.core.transformer.moe.token_dispatcher as dispatcher

    torch.compile = compiler

    megatron_random._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    megatron_random._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
    dispatcher.maybe_move_tensor_to_cpu = _split_sizes


def _split_sizes(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
    """megatron-core turns the sizes of an all-to-all into numbers only on their way from a GPU; gloo, too, takes no tensor."""
    return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else tensor
