"""Model FLOPs, in the causal convention: half of the attention matrix counts, recomputation does not."""

from __future__ import annotations

from cpt.config.model import ModelConfig


def flops_per_token(model: ModelConfig, sequence_length: int, whole_attention: bool = False) -> float:
    """Forward and backward, per token, as megatron-core's training loop counts them for Llama shapes.

    Forward per layer: projections 4 h d (heads + groups), attention 2 s d heads (causal), SwiGLU 6 h ffn; plus logits 2 h V;
    the backward pass costs twice the forward. `whole_attention` is the other convention, of PaLM and nanoGPT: the masked half counts too.
    """
    width = model.kv_channels
    projections = 4 * model.hidden_size * width * (model.num_attention_heads + model.num_query_groups)
    attention = (4 if whole_attention else 2) * sequence_length * width * model.num_attention_heads
    feed_forward = 6 * model.hidden_size * model.ffn_hidden_size
    logits = 2 * model.hidden_size * model.vocab_size
    return 3.0 * (model.num_layers * (projections + attention + feed_forward) + logits)
