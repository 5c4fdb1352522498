"""A gradient norm that does not depend on how the model is cut, and clipping in place.

Without apex and Transformer Engine megatron-core adds squares in fp32, one long sum per tensor: for an embedding of 28M elements
the norm is off by 1.6e-3, and by another amount for each tensor-parallel size, so that clipping differs too. Short sums in fp32,
added up in fp64, are right to about 1e-8 and thirty times as fast on a CPU as a cast of the whole gradient to fp64.
"""

from __future__ import annotations

from typing import Any

import torch

_ROW = 256
"""Squares that are added in fp32."""


def install() -> None:
    """Where megatron-core would use its plain fallbacks."""
    import megatron.core.optimizer.clip_grads as clip_grads
    from megatron.core.utils import local_multi_tensor_l2_norm

    if clip_grads.l2_norm_impl is local_multi_tensor_l2_norm:
        clip_grads.l2_norm_impl = l2_norm
        clip_grads.multi_tensor_scale_impl = scale


def l2_norm(chunk_size: int, noop_flag: torch.Tensor, tensor_lists: list[list[torch.Tensor]], per_tensor: bool, *_: Any) -> tuple[torch.Tensor, None]:
    """Drop-in for amp_C.multi_tensor_l2norm: the norm [1] fp32 of all tensors as one vector."""
    norms = [part for tensors in tensor_lists for tensor in tensors for part in _row_norms(tensor)]
    return torch.linalg.vector_norm(torch.cat(norms), dtype=torch.float64).float().reshape(1), None


def scale(chunk_size: int, noop_flag: torch.Tensor, tensor_lists: list[list[torch.Tensor]], factor: float) -> None:
    """Drop-in for amp_C.multi_tensor_scale where source and destination are the same, as in clipping: no copy is made."""
    sources, destinations = tensor_lists
    if any(a.data_ptr() != b.data_ptr() for a, b in zip(sources, destinations, strict=True)):
        raise ValueError("scales in place only")
    torch._foreach_mul_(destinations, factor)


def _row_norms(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 norms of each `_ROW` elements, and of the rest."""
    flat = tensor.reshape(-1)
    whole = flat.numel() - flat.numel() % _ROW
    return torch.linalg.vector_norm(flat[:whole].view(-1, _ROW), dim=1), torch.linalg.vector_norm(flat[whole:]).reshape(1)
