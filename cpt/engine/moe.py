"""Routed experts: what megatron-core's MoE layer is told, and how many tokens each expert got."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core.transformer.moe.moe_logging import destroy_moe_metrics_tracker
from megatron.core.transformer.moe.router import TopKRouter

from cpt.config.model import ModelConfig


class Router(TopKRouter):
    """megatron-core's, which also counts the tokens it sent to each expert since `assigned` was last set to zero."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        destroy_moe_metrics_tracker()  # one for the process, as long as the first model had layers; a deeper one after it would fail
        self.assigned = torch.zeros(self.config.num_moe_experts, dtype=torch.int64, device=torch.cuda.current_device())

    def routing(self, logits: torch.Tensor, padding_mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [s, b, experts] -> weights and choice [s * b, experts]."""
        weights, chosen = super().routing(logits, padding_mask)
        if self.training and torch.is_grad_enabled():  # of a layer that is recomputed only the second pass
            self.assigned += chosen.sum(dim=0)
        return weights, chosen


def expert_tokens(chunks: list[Any], model: ModelConfig) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """Tokens that each expert got since the last call, over all ranks: [layers with experts, experts]; None without experts. Collective."""
    if not model.moe:
        return None
    counts = torch.zeros(model.num_layers, model.moe.num_experts, dtype=torch.int64, device=torch.cuda.current_device())
    for router in (module for chunk in chunks for module in chunk.modules() if isinstance(module, Router)):
        counts[router.layer_number - 1] = router.assigned
        router.assigned.zero_()
    dist.all_reduce(counts)  # tensor-parallel ranks route different tokens: sequence parallelism is required with experts
    return counts[model.moe.dense_layers :].cpu().numpy()


def moe_settings(model: ModelConfig) -> dict[str, Any]:
    """Arguments of megatron-core's TransformerConfig.

    Experts are never cut by tensor parallelism: theirs are narrow (1408 columns), and spread over the same ranks as expert
    parallelism each matrix stays whole. The router computes in fp32 and its weights are those of the softmax over all
    experts, as the base's do. The balance loss is the one of each sequence, so that it does not depend on micro-batches.
    """
    moe = model.moe
    return {
        "num_moe_experts": moe.num_experts,
        "moe_layer_freq": [0] * moe.dense_layers + [1] * moe.routed_layers(model.num_layers),
        "moe_ffn_hidden_size": moe.ffn_hidden_size,
        "moe_shared_expert_intermediate_size": moe.shared_experts * moe.ffn_hidden_size or None,
        "moe_router_topk": moe.topk,
        "moe_router_pre_softmax": True,
        "moe_router_topk_scaling_factor": moe.topk_scaling_factor,
        "moe_router_dtype": "fp32",
        "moe_router_load_balancing_type": "seq_aux_loss" if moe.aux_loss_coefficient else "none",
        "moe_aux_loss_coeff": moe.aux_loss_coefficient,
        "moe_token_dispatcher_type": "alltoall",
    }
