"""Peak memory of programs that shard everything (FSDP2, as torchtitan uses it): what published rows need and this engine does not do.

Weights, gradients and both moments in fp32 over all ranks; each layer gathered in bf16 when it is used, the next one beside it.
"""

from __future__ import annotations

from cpt.config.parallel import Recompute
from cpt.plan.workload import Workload

_STATE = 16
"""Bytes a parameter: fp32 weight, gradient and two moments."""


def sharded_memory(work: Workload) -> dict[str, int]:
    """Bytes by part, and their total, when the loss is computed: all layers' kept activations are there, and the logits."""
    model, parallel = work.model, work.parallel
    tensor, tokens = parallel.tensor_parallel_size, int(work.tokens)
    layer = (model.attention_parameters[0] + 3 * model.hidden_size * model.ffn_hidden_size) // tensor
    ends = model.hidden_size * model.vocab_size // tensor
    memory = {
        "state": _STATE * model.parameters // work.world_size,
        "gathered": work.value_bytes * (2 * layer + 2 * ends),
        "activations": tokens * model.num_layers * _kept(work) + (2 * tokens * model.hidden_size * work.value_bytes if tensor > 1 else 0),
        "logits": tokens * work.program.loss_bytes * model.vocab_size // tensor,
    }
    return memory | {"total": sum(memory.values())}


def _kept(work: Workload) -> int:
    """Bytes a token and layer: its input; where only every other product is repeated, also q, v, attention's and the down-projection's results, the gate."""
    model, tensor = work.model, work.parallel.tensor_parallel_size
    if work.parallel.recompute is Recompute.full:
        return work.value_bytes * model.hidden_size // tensor
    narrow = model.kv_channels * model.num_query_groups
    return work.value_bytes * (4 * model.hidden_size + narrow + model.ffn_hidden_size) // tensor + 4 * model.num_attention_heads // tensor
