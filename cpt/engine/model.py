"""`ModelConfig` and layout -> megatron-core's GPT model for this rank."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec, get_gpt_layer_with_transformer_engine_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

from cpt.config.model import ModelConfig
from cpt.config.parallel import ParallelConfig, Recompute
from cpt.config.training import Attention, Precision
from cpt.engine import fp8, fusion
from cpt.engine.attention import CoreAttention, ForwardPlan
from cpt.engine.mla import LatentAttention, mla_settings
from cpt.engine.moe import Router, moe_settings
from cpt.engine.rope import inverse_frequencies, restart_with_documents


def build_chunks(model: ModelConfig, parallel: ParallelConfig, precision: Precision, forward: ForwardPlan) -> list[GPTModel]:
    """This rank's model chunks, on its device, with random weights: one, or `virtual_pipeline_size` of an interleaved pipeline.

    Vocabulary rows are padded to a multiple of TP; the pad counts in no softmax, and is cut off again by `cpt.convert`.
    """
    config = transformer_config(model, parallel, precision, forward)
    return [_chunk(number, config, model, parallel, forward) for number in range(parallel.virtual_pipeline_size)]


def _chunk(number: int, config: TransformerConfig, model: ModelConfig, parallel: ParallelConfig, forward: ForwardPlan) -> GPTModel:
    gpt = GPTModel(
        config=config,
        transformer_layer_spec=block_spec(config, forward, number),
        vocab_size=padded_vocab_size(model, parallel),
        max_sequence_length=model.max_position_embeddings,
        pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=number),
        post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=number),
        share_embeddings_and_output_weights=model.tied_embeddings,
        position_embedding_type="rope",
        vp_stage=number if parallel.virtual_pipeline_size > 1 else None,
    )
    if not model.mla:  # whose layers have their own, with YaRN
        gpt.rotary_pos_emb.inv_freq = inverse_frequencies(model, gpt.rotary_pos_emb.inv_freq.device)
    if forward.end_of_document is not None:
        restart_with_documents(gpt)
    if gpt.post_process:
        _silence_padding(gpt, model, parallel)
    has_weights = not any(parameter.is_meta for parameter in gpt.parameters())
    return gpt.cuda(torch.cuda.current_device()) if has_weights and torch.cuda.is_available() else gpt


def transformer_config(model: ModelConfig, parallel: ParallelConfig, precision: Precision, forward: ForwardPlan) -> TransformerConfig:
    """RMSNorm, SwiGLU, RoPE; by family a bias on queries, keys and values, a norm on queries and keys, latent attention, experts."""
    bf16 = precision is Precision.bf16
    config_class = MLATransformerConfig if model.mla else TransformerConfig
    return config_class(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_query_groups,
        kv_channels=model.kv_channels,
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_epsilon,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        add_qkv_bias=model.qkv_bias,
        qk_layernorm=model.qk_norm,
        hidden_dropout=forward.hidden_dropout,
        attention_dropout=forward.attention_dropout,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        tensor_model_parallel_size=parallel.tensor_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_parallel_size,
        expert_model_parallel_size=parallel.expert_parallel_size,
        expert_tensor_parallel_size=1,
        context_parallel_size=parallel.context_parallel_size,
        sequence_parallel=parallel.sequence_parallel and parallel.tensor_parallel_size > 1,
        params_dtype=torch.bfloat16 if bf16 else torch.float32,
        pipeline_dtype=torch.bfloat16 if bf16 else torch.float32,
        bf16=bf16,
        perform_initialization=True,  # a weight that nobody loads is random, never what lay in memory
        **(mla_settings(model) if model.mla else {}),
        **(moe_settings(model) if model.moe else {}),
        **_interleaved(parallel),
        **_recompute(parallel),
        **fp8.settings(forward.fp8),
        **fusion.settings(parallel.fusion, precision),
    )


def block_spec(config: TransformerConfig, forward: ForwardPlan, chunk: int = 0) -> TransformerBlockSubmodules:
    """The layers of one chunk of this pipeline stage: Transformer Engine's, or megatron-core's own with our norms, attention and router put in."""
    first, count = get_transformer_layer_offset(config, vp_stage=chunk), get_num_layers_to_build(config, vp_stage=chunk)
    if forward.kernel.name is Attention.transformer_engine:
        from megatron.core.extensions.transformer_engine import TENorm

        whole = get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)
        return TransformerBlockSubmodules(layer_specs=[whole] * count, layer_norm=TENorm)
    experts = [config.num_moe_experts if routed else None for routed in config.moe_layer_freq] if config.num_moe_experts else [None] * config.num_layers
    specs = {kind: layer_spec(config, kind, forward) for kind in set(experts)}
    return TransformerBlockSubmodules(layer_specs=[specs[kind] for kind in experts[first : first + count]], layer_norm=fusion.norm_class(config))


def layer_spec(config: TransformerConfig, experts: int | None, forward: ForwardPlan) -> ModuleSpec:
    """One layer, dense or with `experts`."""
    spec = get_gpt_layer_local_spec(num_experts=experts, multi_latent_attention=config.multi_latent_attention, normalization="RMSNorm")
    norm = fusion.norm_class(config)
    spec.submodules.input_layernorm = spec.submodules.pre_mlp_layernorm = norm
    attention = spec.submodules.self_attention
    attention.submodules.core_attention = ModuleSpec(module=CoreAttention, params={"kernel": forward.kernel})
    if config.multi_latent_attention:
        attention.module, attention.submodules.kv_layernorm = LatentAttention, norm
    elif config.qk_layernorm:
        attention.submodules.q_layernorm = attention.submodules.k_layernorm = norm
    if experts:
        spec.submodules.mlp.keywords["submodules"].router = Router
    return spec


def padded_vocab_size(model: ModelConfig, parallel: ParallelConfig) -> int:
    """Rows of the embedding over all tensor-parallel ranks."""
    tensor = parallel.tensor_parallel_size
    return -(-model.vocab_size // tensor) * tensor


def _silence_padding(gpt: GPTModel, model: ModelConfig, parallel: ParallelConfig) -> None:
    """A padded row of zeros would have a share in every softmax: the loss would depend on TP, by 5e-4 for one row of 2049."""
    rows = padded_vocab_size(model, parallel) // parallel.tensor_parallel_size
    real = model.vocab_size - rows * parallel_state.get_tensor_model_parallel_rank()

    def fill(_: Any, _arguments: Any, output: tuple[torch.Tensor, Any]) -> None:
        output[0][..., max(0, real) :] = -torch.inf

    if real < rows:
        gpt.output_layer.register_forward_hook(fill)


def _interleaved(parallel: ParallelConfig) -> dict[str, Any]:
    if parallel.virtual_pipeline_size == 1:
        return {}
    return {"virtual_pipeline_model_parallel_size": parallel.virtual_pipeline_size, "overlap_p2p_comm": True, "batch_p2p_comm": False}


def _recompute(parallel: ParallelConfig) -> dict[str, Any]:
    if parallel.recompute is Recompute.selective:
        return {"recompute_granularity": "selective", "recompute_modules": [module.value for module in parallel.recompute_modules]}
    if parallel.recompute is Recompute.none:
        return {}
    some = parallel.recompute_layers > 0
    return {
        "recompute_granularity": "full",
        "recompute_method": "block" if some else "uniform",
        "recompute_num_layers": parallel.recompute_layers if some else 1,
    }
