"""A gradient norm that does not depend on how the model is cut.

Without apex and Transformer Engine megatron-core adds squares in fp32, one long sum per tensor: for an embedding of 3M
elements the norm is off by 1.5e-4, and by another amount for each tensor-parallel size, so that clipping differs too.
"""

from __future__ import annotations

from typing import Any

import torch


def install() -> None:
    """Accumulate the squares in fp64 where megatron-core would use its plain fallback."""
    import megatron.core.optimizer.clip_grads as clip_grads
    from megatron.core.utils import local_multi_tensor_l2_norm

    if clip_grads.l2_norm_impl is local_multi_tensor_l2_norm:
        clip_grads.l2_norm_impl = l2_norm


def l2_norm(chunk_size: int, noop_flag: torch.Tensor, tensor_lists: list[list[torch.Tensor]], per_tensor: bool, *_: Any) -> tuple[torch.Tensor, None]:
    """Drop-in for amp_C.multi_tensor_l2norm: the norm [1] fp32 of all tensors as one vector."""
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensors in tensor_lists for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack(norms)).float().reshape(1), None
