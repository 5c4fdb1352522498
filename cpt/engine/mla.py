"""Multi-latent attention that trains the same under tensor parallelism."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import gather_from_tensor_model_parallel_region, scatter_to_sequence_parallel_region
from megatron.core.transformer.multi_latent_attention import MLASelfAttention, MLASelfAttentionSubmodules

from cpt.config.model import ModelConfig, RopeKind


class LatentAttention(MLASelfAttention):
    """megatron-core's, with the gradient of the shared rotated key summed over TP.

    Without Transformer Engine megatron-core cuts the down projection by columns and gathers its output, and the way back only
    takes each rank's columns. The latent's gradient is whole on every rank by then; that of the rotated key, which all heads
    share, holds this rank's heads alone. Losses of the first step agree; gradient norm and all later steps are wrong.
    Under sequence parallelism, which the configuration demands, the rotated key is gathered once more, and that way back sums.
    """

    def _resolve_qk_norm_config(self, submodules: MLASelfAttentionSubmodules) -> dict[str, Any]:
        """What the spec says. megatron-core's resolver would put a norm before the query's projection, which this family has not."""
        return {name: getattr(submodules, name) for name in ("linear_q_proj", "linear_kv_up_proj", "kv_layernorm")}

    def _qkv_down_projection(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[s / TP, b, h] -> the query [s, b, columns of this rank], and [s / TP, b, latent + rotated] with all columns."""
        query, columns = super()._qkv_down_projection(hidden_states)
        if self.pg_collection.tp.size() == 1:
            return query, columns
        combined = gather_from_tensor_model_parallel_region(columns, group=self.pg_collection.tp)
        return query, scatter_to_sequence_parallel_region(combined, group=self.pg_collection.tp)


def mla_settings(model: ModelConfig) -> dict[str, Any]:
    """Arguments of megatron-core's MLATransformerConfig. The scale of the scores, YaRN's mscale squared with it, it computes itself."""
    mla, rope = model.mla, model.rope_scaling
    return {
        "multi_latent_attention": True,
        "q_lora_rank": None,
        "kv_lora_rank": mla.kv_lora_rank,
        "qk_head_dim": mla.qk_head_dim,
        "qk_pos_emb_head_dim": mla.qk_pos_emb_head_dim,
        "v_head_dim": mla.v_head_dim,
        "rope_type": "yarn" if rope.kind is RopeKind.yarn else "rope",
        "rotary_base": model.rope_theta,
        "rotary_scaling_factor": rope.factor,
        "original_max_position_embeddings": rope.original_max_position_embeddings,
        "beta_fast": rope.beta_fast,
        "beta_slow": rope.beta_slow,
        "mscale": rope.mscale,
        "mscale_all_dim": rope.mscale_all_dim,
        "apply_rope_fusion": False,
    }
