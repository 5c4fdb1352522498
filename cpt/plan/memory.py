"""Bytes on one rank, by part. h hidden, f ffn, a heads, g groups, d channels a head, t tensor parallel, e bytes a value.

Weights, gradients and optimizer state are what megatron-core's distributed optimizer holds. Activations are what this
engine's layer saves for the backward pass (unfused norm, rotary embedding and SwiGLU; attention keeps no s x s matrix); a
test counts the saved tensors of a real model and finds the same number. Korthikanti et al. 2022 (arXiv 2205.05198, table 2)
give s b h (18 + 4 f / h) / t for fused GPT layers, about 40% less for Llama shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from cpt.config.model import ModelConfig
from cpt.config.parallel import ParallelConfig, Recompute, RecomputeModule
from cpt.config.training import Precision
from cpt.plan.workload import Workload

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers")

_VALUE_BYTES = {Precision.bf16: 2, Precision.fp32: 4}
_FP8_COPIES = 2
"""Transformer Engine keeps each weight in fp8, and transposed, from a step's first micro-batch to its last."""
_OPTIMIZER_BYTES = {Precision.bf16: 12, Precision.fp32: 8}
"""Two fp32 moments; with bf16 weights also their fp32 master copy. Sharded over the data-parallel ranks."""
_CHECKPOINT_BYTES = 12
"""Per parameter: master weight and two moments in fp32. What the model computes with is the master, rounded, and is not written."""


def fullest_rank(work: Workload) -> dict[str, int]:
    """Bytes by part, and their total, on the rank of the pipeline stage that needs most."""
    return max((stage_memory(work, stage) for stage in _candidates(work.parallel.pipeline_parallel_size)), key=lambda memory: memory["total"])


def _candidates(stages: int) -> Iterable[int]:
    """The first has most micro-batches in flight, the second may be the first without dense layers, the last has the logits."""
    return sorted({0, min(1, stages - 1), stages - 1})


def stage_memory(work: Workload, stage: int) -> dict[str, int]:
    """Bytes by part on one rank of pipeline stage `stage`, at the height of the 1F1B schedule, plain or interleaved."""
    parallel = work.parallel
    parameters, experts = stage_parameters(work.model, parallel, stage), expert_parameters(work.model, parallel, stage)
    last = stage == parallel.pipeline_parallel_size - 1
    in_flight = chunks_in_flight(parallel, stage, work.micro_batches)
    # Of the ranks of a stage, TP x CP x DP, each set of experts is on every expert_parallel_size-th.
    expert_replicas = parallel.tensor_parallel_size * work.holders // parallel.expert_parallel_size
    copies = _FP8_COPIES if work.fp8 else 0
    memory = {
        "weights": parameters * (work.value_bytes + copies),
        "gradients": parameters * work.program.gradient_bytes,
        "optimizer": _OPTIMIZER_BYTES[work.precision] * ((parameters - experts) // work.holders + experts // expert_replicas),
        "activations": int(work.tokens) * stage_activations(work, in_flight, stage),
        "logits": int(work.tokens) * _logits(work) if last else 0,
        "buffers": work.hardware.library_memory + int(work.tokens) * _buffers(work),
    }
    return memory | {"total": sum(memory.values())}


def chunks_in_flight(parallel: ParallelConfig, stage: int, micro_batches: int) -> int:
    """Micro-batches that wait for their backward pass, each counted once for each model chunk that it has passed.

    One chunk: as many as stages follow, and one. Interleaved, as megatron-core warms up (Narayanan et al. 2021, arXiv
    2104.04473, section 2.2): twice as many as stages follow, a round of the pipeline for each chunk but one, and one.
    """
    stages, chunks = parallel.pipeline_parallel_size, parallel.virtual_pipeline_size
    if chunks == 1:
        return min(micro_batches, stages - stage)
    return min(micro_batches * chunks, 2 * (stages - stage - 1) + (chunks - 1) * stages + 1)


def stage_parameters(model: ModelConfig, parallel: ParallelConfig, stage: int) -> int:
    """Parameters that one rank of this stage holds: matrices cut by TP, routed experts spread by EP, norms and routers whole,
    embeddings first, output layer last.

    Tied embeddings cost a second copy when first and last stage are different ones.
    """
    tensor, stages, hidden, moe = parallel.tensor_parallel_size, parallel.pipeline_parallel_size, model.hidden_size, model.moe
    first, last = stage == 0, stage == stages - 1
    dense, routed = stage_layers(model, parallel, stage)
    matrices, norms = model.attention_parameters
    layers = (dense + routed) * (matrices // tensor + norms + 2 * hidden) + dense * (3 * hidden * model.ffn_hidden_size // tensor)
    shared = routed * (moe.shared_experts * moe.expert_parameters(hidden) // tensor + hidden * moe.num_experts)
    rows = -(-model.vocab_size // tensor)
    output = last and not (first and model.tied_embeddings)
    return layers + shared + expert_parameters(model, parallel, stage) + rows * hidden * (first + output) + (hidden if last else 0)


def expert_parameters(model: ModelConfig, parallel: ParallelConfig, stage: int) -> int:
    """Those of them that are routed experts."""
    moe = model.moe
    return stage_layers(model, parallel, stage)[1] * moe.num_experts // parallel.expert_parallel_size * moe.expert_parameters(model.hidden_size)


def stage_layers(model: ModelConfig, parallel: ParallelConfig, stage: int) -> tuple[int, int]:
    """(dense, with experts): how many layers of each kind a stage has."""
    kinds = _kinds(model.num_layers, model.moe.routed_layers(model.num_layers), parallel.pipeline_parallel_size, parallel.virtual_pipeline_size, stage, 0)
    return kinds.count((False, False)), kinds.count((True, False))


@functools.cache
def _kinds(layers: int, experts: int, stages: int, chunks: int, stage: int, again: int) -> tuple[tuple[bool, bool], ...]:
    """(with experts, computed again) of each layer of a stage: `experts` at the end of the model have some, the first `again` of each chunk are
    computed again; an interleaved stage has every n-th chunk."""
    size = layers // (stages * chunks)
    return tuple((layer >= layers - experts, layer % size < again) for layer in range(layers) if layer // size % stages == stage)


def stage_activations(work: Workload, in_flight: int, stage: int) -> int:
    """Bytes per token of a micro-batch, with `in_flight` micro-batches x chunks waiting for their backward pass."""
    model, parallel, value = work.model, work.parallel, work.value_bytes
    stages, chunks = parallel.pipeline_parallel_size, parallel.virtual_pipeline_size
    sharded = parallel.tensor_parallel_size if parallel.sequence_parallel else 1
    final_norm = (8 + value) * model.hidden_size // sharded if stage == stages - 1 else 0
    again = (parallel.recompute_layers or model.num_layers) if parallel.recompute is Recompute.full else 0
    kinds = _kinds(model.num_layers, model.moe.routed_layers(model.num_layers), stages, chunks, stage, again)
    whole = {routed: layer_activations(model, parallel, work.precision, routed) for routed in {kind[0] for kind in kinds}}
    # Of a layer that is computed again: its input, and everything while that lasts.
    kept = sum(value * model.hidden_size // sharded if repeated else whole[routed] for routed, repeated in kinds)
    at_once = max((whole[routed] for routed, repeated in kinds if repeated), default=0)
    return in_flight * kept // chunks + at_once + final_norm


def layer_activations(model: ModelConfig, parallel: ParallelConfig, precision: Precision, routed: bool = False) -> int:
    """Bytes per token that one layer saves.

    Two norms: fp32 input, normed value, output: h (4 + 2e) each, cut by TP under sequence parallelism only. SwiGLU: gate and
    up, activated gate, up again, product: 5 e f / t.
    """
    value, tensor = _VALUE_BYTES[precision], parallel.tensor_parallel_size
    norms = 2 * (model.hidden_size * (4 + 2 * value) + 4) // (tensor if parallel.sequence_parallel else 1)
    attention = _latent_attention(model, parallel, value) if model.mla else _attention(model, parallel, value)
    return norms + attention + (_experts(model, parallel, value) if routed else _feed_forward(model, parallel, value)) // tensor


def _feed_forward(model: ModelConfig, parallel: ParallelConfig, value: int) -> int:
    return 0 if parallel.recomputes(RecomputeModule.mlp) else 5 * value * model.ffn_hidden_size


def _attention(model: ModelConfig, parallel: ParallelConfig, value: int) -> int:
    """The joint qkv, rotated q and k, output: 3 e d (a + g) / t; rotary tables 4 e d; log-sum-exp 4 a / t, dropped where core_attn is computed again.

    Over c context-parallel ranks also all ranks' keys and values, for each of this rank's tokens 2 e d g c / t (counted, not measured).
    """
    tensor = parallel.tensor_parallel_size
    heads = 3 * value * model.kv_channels * (model.num_attention_heads + model.num_query_groups) // tensor
    again = parallel.recomputes(RecomputeModule.core_attn)
    log_sum = 0 if again else 4 * model.num_attention_heads // tensor
    context = parallel.context_parallel_size if parallel.context_parallel_size > 1 and not again else 0
    return heads + 4 * value * model.kv_channels + log_sum + 2 * value * model.kv_channels * model.num_query_groups * context // tensor


def _latent_attention(model: ModelConfig, parallel: ParallelConfig, value: int) -> int:
    """Per head q, k, and v and output both as they are and, for the kernel, as wide as q (dropped, with the log-sum-exp, where core_attn is computed again); the latent's norm; rotary tables."""
    mla, tensor = model.mla, parallel.tensor_parallel_size
    wide, narrow = mla.query_channels, mla.v_head_dim
    head = value * (2 * wide + 2 * narrow) if parallel.recomputes(RecomputeModule.core_attn) else value * (4 * wide + narrow * (narrow < wide)) + 4
    norm = (mla.kv_lora_rank * (4 + 2 * value) + 4) // (tensor if parallel.sequence_parallel else 1)
    return model.num_attention_heads * head // tensor + norm + 4 * value * mla.qk_pos_emb_head_dim


def _experts(model: ModelConfig, parallel: ParallelConfig, value: int) -> int:
    """When all get equally many tokens. For each choice of a token: its copy e h, SwiGLU and weighted product 6 e f, weight and places
    28; router: scores, again for the balance loss, 16 for each expert. Shared experts: 5 e f each."""
    moe = model.moe
    choice = value * (model.hidden_size + 6 * moe.ffn_hidden_size) + 28
    if parallel.recomputes(RecomputeModule.moe):
        return 0
    shared = 0 if parallel.recomputes(RecomputeModule.shared_experts) else 5 * value * moe.shared_experts * moe.ffn_hidden_size
    return moe.topk * choice + 16 * moe.num_experts + shared


def _logits(work: Workload) -> int:
    """Bytes per token: the softmax in fp32, and the logits or their gradient in compute precision beside it."""
    return (4 + work.value_bytes) * (-(-work.model.vocab_size // work.parallel.tensor_parallel_size))


def _buffers(work: Workload) -> int:
    """Bytes per token: with sequence parallelism the gathered input of a product and its gradient, between stages one activation each way."""
    parallel, width = work.parallel, work.value_bytes * work.model.hidden_size
    tensor = parallel.tensor_parallel_size
    gathered = 2 * width if parallel.sequence_parallel and tensor > 1 else 0
    received = 2 * width // (tensor if parallel.sequence_parallel else 1) if parallel.pipeline_parallel_size > 1 else 0
    return gathered + received


def checkpoint_bytes(model: ModelConfig) -> int:
    """One checkpoint, in any precision."""
    return model.parameters * _CHECKPOINT_BYTES
