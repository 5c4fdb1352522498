"""A data-parallel group of one has nobody to exchange with: gloo copies its whole buffers onto themselves, three times a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def install() -> None:
    """Let megatron-core's gradient reduce-scatter and weight all-gather do nothing when they would only copy a buffer to where it is."""
    import megatron.core.distributed.param_and_grad_buffer as buffers

    for name in ("dist_reduce_scatter_func", "dist_all_gather_func"):
        if not isinstance(collective := getattr(buffers, name), UnlessAlone):
            setattr(buffers, name, UnlessAlone(collective))


class UnlessAlone:
    """The collective, or nothing where output and input are the same memory. An asynchronous one still gives a handle to wait for."""

    def __init__(self, collective: Callable[..., Any]) -> None:
        self.collective = collective

    def __call__(self, output: torch.Tensor, source: torch.Tensor, *, async_op: bool = False, **rest: Any) -> Any:
        """As torch.distributed's reduce_scatter_tensor and all_gather_into_tensor."""
        if not async_op and output.numel() == source.numel() and output.data_ptr() == source.data_ptr():
            return None
        return self.collective(output, source, async_op=async_op, **rest)
