"""RMSNorm that tells megatron-core about sequence parallelism (torch's own does not, and megatron refuses it)."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig


class RMSNorm(torch.nn.Module):
    """x * rsqrt(mean(x^2) + eps) * weight, the mean in fp32 as in Hugging Face's LlamaRMSNorm."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=torch.cuda.current_device()))
        # With sequence parallelism each rank sees other tokens: megatron then sums this weight's gradient over TP.
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> the same shape and type."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class FusedRMSNorm(RMSNorm):
    """The same in one kernel, rounded once at its end; it keeps its input and a number per token for the backward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> the same shape and type."""
        return torch.nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
