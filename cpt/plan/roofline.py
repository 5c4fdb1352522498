"""Seconds of arithmetic: products at a measured share of the peak, what lies between them at memory bandwidth.

Two constants are measured, one a precision (`cluster.rates`), each on a single row of published ones; the others are stated here with their reason.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from cpt.config.parallel import Recompute, RecomputeModule
from cpt.plan.flops import attention_flops, layer_flops, logits_flops
from cpt.plan.workload import Workload

ATTENTION = 0.75
"""Rate of fused attention over that of large products: causal, heads of 128 (FlashAttention-3, arXiv 2407.08608, figures 5 and 6, against cuBLAS)."""

BACKWARD_ATTENTION = 2.5
"""Its backward pass over its forward: five products against two."""

MEMORY = 0.9
"""Share of the memory bandwidth that streaming kernels reach."""

# Values read and written for a token, fused kernels, forward and backward: of the hidden size two norms and two residual sums, of the heads' channels the
# rotation of q and k, of the feed-forward size the activation.
_HIDDEN, _HEADS, _FEED_FORWARD = (10, 12), (2, 2), (3, 5)
_FP8_HIDDEN, _FP8_FEED_FORWARD = (3, 3.25), (1, 3)
"""Values cast to fp8, forward and backward, each 4 bytes: read in bf16, written as it is and transposed."""
_FP8_CAST = 4
_LOGITS = 7
"""Values a token and word of the vocabulary: logits written, read, shifted, exponentiated; their gradient."""
_FORWARD_SCORES = 0.4
"""Of what an attention that keeps its matrix sends through memory the share of its forward pass: 13 of 32 bytes."""
_OPTIMIZER = 30
"""Bytes a parameter: gradient, master copy and moments read, all but the gradient written, weights written in bf16."""


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds by kind."""

    products: float = 0.0
    attention: float = 0.0
    memory: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    @property
    def seconds(self) -> float:
        """In all."""
        return self.products + self.attention + self.memory


def product_rate(work: Workload, fp8: bool) -> float:
    """FLOP/s of a matrix product inside of a step."""
    return work.hardware.fp8_peak_flops * work.rates.fp8_efficiency if fp8 else work.hardware.peak_flops * work.rates.bf16_efficiency


def forward(work: Workload, routed: bool) -> Work:
    """Of one layer and micro-batch on one rank."""
    return Work(
        products=work.tokens * layer_flops(work.model, routed) / work.parallel.tensor_parallel_size / product_rate(work, work.fp8),
        attention=_attention(work) + _FORWARD_SCORES * _scores(work),
        memory=_streamed(work, routed, 0),
    )


def backward(work: Workload, routed: bool) -> Work:
    """Likewise, without what is computed again."""
    ahead = forward(work, routed)
    attention = BACKWARD_ATTENTION * _attention(work) + (1 - _FORWARD_SCORES) * _scores(work)
    return Work(products=2 * ahead.products, attention=attention, memory=_streamed(work, routed, 1))


def again(work: Workload, routed: bool) -> Work:
    """What a layer computes a second time in its backward pass. Of `recompute_layers` the share that they are of all."""
    parallel, ahead = work.parallel, forward(work, routed)
    if parallel.recompute is Recompute.full:
        layers = work.layers_a_stage / parallel.virtual_pipeline_size
        share = min(parallel.recompute_layers or layers, layers) / layers
        return Work(*(share * seconds for seconds in astuple(ahead)))
    if work.program.products_again:
        return Work(products=work.program.products_again * ahead.products, memory=ahead.memory)
    part = _feed_forward_share(work, routed)
    repeated = parallel.recomputes(RecomputeModule.moe if routed else RecomputeModule.mlp)
    return Work(
        products=part * ahead.products if repeated else 0.0,
        attention=ahead.attention if parallel.recomputes(RecomputeModule.core_attn) else 0.0,
        memory=ahead.memory / 2 if repeated else 0.0,
    )


def logits(work: Workload) -> Work:
    """Of one micro-batch, forward and backward: three products in bf16, softmax and loss."""
    tokens, tensor = work.tokens, work.parallel.tensor_parallel_size
    streamed = _LOGITS * work.value_bytes * tokens * work.model.vocab_size / tensor
    return Work(
        products=3 * tokens * logits_flops(work.model) / tensor / product_rate(work, False),
        memory=streamed / (work.hardware.memory_bandwidth * MEMORY),
    )


def optimizer(work: Workload, parameters: int) -> float:
    """Seconds of one update of a rank's shard; `parameters` are those of the rank's stage."""
    return _OPTIMIZER * parameters / work.holders / (work.hardware.memory_bandwidth * MEMORY)


def _attention(work: Workload) -> float:
    flops = work.tokens * attention_flops(work.model, work.sequence_length) / work.parallel.tensor_parallel_size
    return flops / (ATTENTION * product_rate(work, False))


def _scores(work: Workload) -> float:
    """Seconds at memory bandwidth of an attention that keeps its s x s matrix, both passes."""
    size = work.program.score_bytes * work.sequence_length * work.model.num_attention_heads / work.parallel.tensor_parallel_size
    return work.tokens * size / (work.hardware.memory_bandwidth * MEMORY)


def _feed_forward_share(work: Workload, routed: bool) -> float:
    model = work.model
    return 1 - 2 * model.attention_parameters[0] / layer_flops(model, routed)


def _streamed(work: Workload, routed: bool, direction: int) -> float:
    """Seconds at memory bandwidth; norms and sums are cut by sequence parallelism only."""
    model, parallel = work.model, work.parallel
    tensor, shard = parallel.tensor_parallel_size, parallel.tensor_parallel_size if parallel.sequence_parallel else 1
    passed = _feed_forward_width(work, routed)
    channels = model.kv_channels * (model.num_attention_heads + model.num_query_groups)
    inside = _HEADS[direction] * channels + _FEED_FORWARD[direction] * passed + (4 * model.moe.topk * model.hidden_size if routed else 0)
    size = work.value_bytes * (_HIDDEN[direction] * model.hidden_size / shard + inside / tensor)
    if work.fp8:
        size += _FP8_CAST * (_FP8_HIDDEN[direction] * model.hidden_size + _FP8_FEED_FORWARD[direction] * passed) / tensor
    return work.tokens * size / (work.hardware.memory_bandwidth * MEMORY)


def _feed_forward_width(work: Workload, routed: bool) -> int:
    """Of all that a token passes."""
    moe = work.model.moe
    return (moe.topk + moe.shared_experts) * moe.ffn_hidden_size if routed else work.model.ffn_hidden_size
