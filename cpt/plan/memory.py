"""Bytes on one rank, by part. h hidden, f ffn, a heads, g groups, d channels a head, t tensor parallel, e bytes a value.

Weights, gradients and optimizer state are what megatron-core's distributed optimizer holds. Activations are what this
engine's layer saves for the backward pass (unfused norm, rotary embedding and SwiGLU; attention keeps no s x s matrix); a
test counts the saved tensors of a real model and finds the same number. Korthikanti et al. 2022 (arXiv 2205.05198, table 2)
give s b h (18 + 4 f / h) / t for fused GPT layers, about 40% less for Llama shapes.
"""

from __future__ import annotations

from cpt.config.model import ModelConfig
from cpt.config.run import RunConfig
from cpt.config.training import ParallelConfig, Precision, Recompute

PARTS = ("weights", "gradients", "optimizer", "activations", "logits")

_VALUE_BYTES = {Precision.bf16: 2, Precision.fp32: 4}
_GRADIENT_BYTES = 4
_OPTIMIZER_BYTES = {Precision.bf16: 12, Precision.fp32: 8}
"""Two fp32 moments; with bf16 weights also their fp32 master copy. Sharded over the data-parallel ranks."""
_CHECKPOINT_BYTES = 12
"""Per parameter: master weight and two moments in fp32. What the model computes with is the master, rounded, and is not written."""


def fullest_rank(config: RunConfig) -> dict[str, int]:
    """Bytes by part, and their total, on the rank of the pipeline stage that needs most."""
    return max((stage_memory(config, stage) for stage in range(config.parallel.pipeline_parallel_size)), key=lambda memory: memory["total"])


def stage_memory(config: RunConfig, stage: int) -> dict[str, int]:
    """Bytes by part on one rank of pipeline stage `stage`, at the height of the 1F1B schedule."""
    train, parallel = config.train, config.parallel
    parameters = stage_parameters(config.model, parallel, stage)
    replicas = parallel.data_parallel_size(config.slurm.world_size)
    last = stage == parallel.pipeline_parallel_size - 1
    micro_batches = train.global_batch_size // (train.micro_batch_size * replicas)
    in_flight = min(micro_batches, parallel.pipeline_parallel_size - stage)
    tokens = train.micro_batch_size * train.sequence_length
    memory = {
        "weights": parameters * _VALUE_BYTES[train.precision],
        "gradients": parameters * _GRADIENT_BYTES,
        "optimizer": parameters * _OPTIMIZER_BYTES[train.precision] // replicas,
        "activations": tokens * stage_activations(config, in_flight, last),
        "logits": tokens * _logits(config) if last else 0,
    }
    return memory | {"total": sum(memory.values())}


def stage_parameters(model: ModelConfig, parallel: ParallelConfig, stage: int) -> int:
    """Parameters that one rank of this stage holds: matrices cut by TP, norms whole, embeddings first, output layer last.

    Tied embeddings cost a second copy when first and last stage are different ones.
    """
    tensor, stages, hidden = parallel.tensor_parallel_size, parallel.pipeline_parallel_size, model.hidden_size
    first, last = stage == 0, stage == stages - 1
    matrices = hidden * (2 * model.kv_channels * (model.num_attention_heads + model.num_query_groups) + 3 * model.ffn_hidden_size)
    layers = model.num_layers // stages * (matrices // tensor + 2 * hidden)
    rows = -(-model.vocab_size // tensor)
    output = last and not (first and model.tied_embeddings)
    return layers + rows * hidden * (first + output) + (hidden if last else 0)


def stage_activations(config: RunConfig, in_flight: int, last: bool) -> int:
    """Bytes per token of a micro-batch, with `in_flight` micro-batches waiting for their backward pass."""
    model, parallel = config.model, config.parallel
    value, layers = _VALUE_BYTES[config.train.precision], model.num_layers // parallel.pipeline_parallel_size
    sharded = parallel.tensor_parallel_size if parallel.sequence_parallel else 1
    whole = layer_activations(model, parallel, config.train.precision)
    final_norm = (8 + value) * model.hidden_size // sharded if last else 0
    if parallel.recompute is Recompute.full:  # each layer's input, and everything of the one layer being computed again
        return in_flight * (layers * value * model.hidden_size // sharded) + whole + final_norm
    return in_flight * layers * whole + final_norm


def layer_activations(model: ModelConfig, parallel: ParallelConfig, precision: Precision) -> int:
    """Bytes per token that one layer saves.

    Two norms: fp32 input, normed value, output: h (4 + 2e) each, cut by TP under sequence parallelism only. Attention: the
    joint qkv, rotated q and k, output: 3 e d (a + g) / t; rotary tables 4 e d; log-sum-exp 4 a / t, dropped by selective
    recompute. SwiGLU: gate and up, activated gate, up again, product: 5 e f / t.
    """
    value, tensor = _VALUE_BYTES[precision], parallel.tensor_parallel_size
    norms = 2 * (model.hidden_size * (4 + 2 * value) + 4) // (tensor if parallel.sequence_parallel else 1)
    attention = 3 * value * model.kv_channels * (model.num_attention_heads + model.num_query_groups) // tensor
    rotary = 4 * value * model.kv_channels
    log_sum = 0 if parallel.recompute is Recompute.selective else 4 * model.num_attention_heads // tensor
    return norms + attention + rotary + log_sum + 5 * value * model.ffn_hidden_size // tensor


def _logits(config: RunConfig) -> int:
    """Bytes per token: the softmax in fp32, and the logits or their gradient in compute precision beside it."""
    return (4 + _VALUE_BYTES[config.train.precision]) * (-(-config.model.vocab_size // config.parallel.tensor_parallel_size))


def checkpoint_bytes(config: RunConfig) -> int:
    """One checkpoint, in any precision."""
    return config.model.parameters * _CHECKPOINT_BYTES
