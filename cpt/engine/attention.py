"""Core attention in megatron-core's layers: hands the heads of this rank to a kernel, by rows or by segments."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig

from cpt.config.training import Fp8
from cpt.engine.kernels import SDPA, Kernel
from cpt.engine.segments import Segments, segments


@dataclass(frozen=True)
class ForwardPlan:
    """What a forward pass does besides its architecture."""

    kernel: Kernel = SDPA
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    fp8: Fp8 = Fp8.none
    end_of_document: int | None = None
    """The token id behind which no token looks back; None: documents are not told apart."""


PLAIN = ForwardPlan()
"""Torch's kernels, nothing dropped, one document a row."""


class CoreAttention(MegatronModule):
    """Causal attention with grouped queries; keys and values come from all context-parallel ranks."""

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        kernel: Kernel,
        softmax_scale: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        if attn_mask_type is not AttnMaskType.causal or attention_type != "self":
            raise ValueError(f"only causal self-attention, not {attn_mask_type} {attention_type}")
        assert kernel.dense and kernel.varlen, f"{kernel} brings layers of its own"
        self.dense, self.varlen = kernel.dense, kernel.varlen
        self.softmax_scale = softmax_scale

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, packed_seq_params: Any = None, **_: Any
    ) -> torch.Tensor:
        """query [s, b, heads, d], key [s, b, groups, d], value [s, b, groups, d_v] -> [s, b, heads * d_v]; s of this rank's context."""
        dropout = self.config.attention_dropout if self.training else 0.0
        # Tensor-parallel ranks have other heads, and must drop other weights. Under sequence parallelism the whole block runs in that fork already.
        with get_cuda_rng_tracker().fork() if dropout and not self.config.sequence_parallel else nullcontext():
            parts = packed_seq_params.segments if packed_seq_params is not None else _context_segments(query)
            if parts is None:
                out = self.dense(query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), self.softmax_scale, dropout)
            else:
                out = self._by_segments(query, key, value, parts, dropout)
        s, b = query.shape[:2]
        # The view gives a row alone its usual strides: over others torch multiplies frozen weights by another routine, which rounds otherwise.
        return out.reshape(b, s, -1).transpose(0, 1).contiguous().view(s, b, -1)

    def _by_segments(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, parts: Segments, dropout: float) -> torch.Tensor:
        group = parallel_state.get_context_parallel_group()
        if group.size() > 1:
            key, value = (gather_from_sequence_parallel_region(tensor, group=group) for tensor in (key, value))
        q, k, v = (tensor.transpose(0, 1).flatten(0, 1) for tensor in (query, key, value))
        if parts.keys is not None:
            k, v = k[parts.keys], v[parts.keys]
        return self.varlen(q, k, v, parts, self.softmax_scale, dropout)


def _context_segments(query: torch.Tensor) -> Segments | None:
    """Whole rows, seen from one context-parallel rank; None where there is only one."""
    size = parallel_state.get_context_parallel_world_size()
    if size == 1:
        return None
    return segments(((0,),) * query.shape[1], query.shape[0] * size, parallel_state.get_context_parallel_rank(), size)
