"""Core attention through torch's scaled_dot_product_attention: flash kernels on GPUs, no s x s matrix on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import scaled_dot_product_attention

NAME = "torch SDPA"


class SdpaCoreAttention(MegatronModule):
    """Causal attention with grouped queries, one call for all local heads."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        softmax_scale: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        self.softmax_scale = softmax_scale
        if attn_mask_type is not AttnMaskType.causal or attention_type != "self":
            raise ValueError(f"only causal self-attention, not {attn_mask_type} {attention_type}")

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, **_: Any) -> torch.Tensor:
        """query [s, b, heads, d], key and value [s, b, groups, d] -> [s, b, heads * d]."""
        q, k, v = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.softmax_scale, enable_gqa=q.shape[1] != k.shape[1])
        s, b = query.shape[:2]
        return out.permute(2, 0, 1, 3).reshape(s, b, -1)
