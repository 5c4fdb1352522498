"""Model FLOPs, in the causal convention: half of the attention matrix counts, recomputation does not."""

from __future__ import annotations

from cpt.config.model import ModelConfig


def flops_per_token(model: ModelConfig, sequence_length: int, whole_attention: bool = False) -> float:
    """Forward and backward, per token, as megatron-core's training loop counts them; of routed experts only those that a token passes.

    Forward: every matrix 2 FLOPs a parameter; attention s a (d_qk + d_v) (causal), so 2 s d a for heads of one width; logits 2 h V.
    The backward pass costs twice the forward. `whole_attention` is the other convention, of PaLM and nanoGPT: the masked half counts too.
    """
    seen = sequence_length * (2 if whole_attention else 1)
    return 3.0 * (model.num_layers * _attention(model, seen) + _feed_forward(model) + 2 * model.hidden_size * model.vocab_size)


def _attention(model: ModelConfig, seen: int) -> int:
    heads, mla = model.num_attention_heads, model.mla
    if mla:
        return 2 * model.attention_parameters[0] + seen * heads * (mla.query_channels + mla.v_head_dim)
    projections = 4 * model.hidden_size * model.kv_channels * (heads + model.num_query_groups)
    return projections + 2 * seen * model.kv_channels * heads


def _feed_forward(model: ModelConfig) -> int:
    """Of all layers."""
    moe, hidden = model.moe, model.hidden_size
    routed = moe.routed_layers(model.num_layers)
    passed = (moe.topk + moe.shared_experts) * moe.expert_parameters(hidden) + hidden * moe.num_experts
    return 6 * (model.num_layers - routed) * hidden * model.ffn_hidden_size + 2 * routed * passed
