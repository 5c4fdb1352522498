"""Model FLOPs, in the causal convention: half of the attention matrix counts, recomputation does not."""

from __future__ import annotations

from cpt.config.model import ModelConfig


def flops_per_token(model: ModelConfig, sequence_length: int, whole_attention: bool = False) -> float:
    """Forward and backward, per token, as megatron-core's training loop counts them; of routed experts only those that a token passes.

    Forward: every matrix 2 FLOPs a parameter; attention s a (d_qk + d_v) (causal), so 2 s d a for heads of one width; logits 2 h V.
    The backward pass costs twice the forward. `whole_attention` is the other convention, of PaLM and nanoGPT: the masked half counts too.
    """
    routed = model.moe.routed_layers(model.num_layers)
    attention = model.num_layers * attention_flops(model, sequence_length * (2 if whole_attention else 1))
    return 3.0 * ((model.num_layers - routed) * layer_flops(model, False) + routed * layer_flops(model, True) + attention + logits_flops(model))


def layer_flops(model: ModelConfig, routed: bool) -> int:
    """Forward, per token, of the matrices of one layer: projections and feed-forward, or of its experts those that a token passes."""
    hidden, moe = model.hidden_size, model.moe
    matrices = 2 * model.attention_parameters[0] if model.mla else 4 * hidden * model.kv_channels * (model.num_attention_heads + model.num_query_groups)
    if not routed:
        return matrices + 6 * hidden * model.ffn_hidden_size
    return matrices + 2 * ((moe.topk + moe.shared_experts) * moe.expert_parameters(hidden) + hidden * moe.num_experts)


def attention_flops(model: ModelConfig, sequence_length: int) -> int:
    """Forward, per token, of scores and weighted values of one layer, causal."""
    mla = model.mla
    return sequence_length * model.num_attention_heads * (mla.query_channels + mla.v_head_dim if mla else 2 * model.kv_channels)


def logits_flops(model: ModelConfig) -> int:
    """Forward, per token."""
    return 2 * model.hidden_size * model.vocab_size
