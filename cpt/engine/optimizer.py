"""Distributed AdamW, and its step in two halves: the norm of the gradient first, the update only when it is wanted."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer import get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32

from cpt.config.parallel import ParallelConfig
from cpt.config.training import OptimizerConfig, Precision
from cpt.engine import adam, alone, grad_norm
from cpt.engine.parallel import rehearsed


def build_optimizer(modules: list[Any], optimizer: OptimizerConfig, parallel: ParallelConfig, precision: Precision) -> Any:
    """megatron-core's DistributedOptimizer over DDP-wrapped model chunks; master weights and moments fp32, sharded over DP."""
    adam.install()
    grad_norm.install()
    alone.install()
    bf16 = precision is Precision.bf16
    built = get_megatron_optimizer(
        MegatronOptimizerConfig(
            optimizer="adam",
            lr=0.0,  # set before every step
            adam_beta1=optimizer.beta1,
            adam_beta2=optimizer.beta2,
            adam_eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
            clip_grad=optimizer.clip_grad,
            bf16=bf16,
            params_dtype=torch.bfloat16 if bf16 else torch.float32,
            use_distributed_optimizer=True,
            overlap_param_gather=parallel.overlap_param_gather,
        ),
        modules,
        use_gloo_process_groups=not rehearsed(),
    )
    if not bf16:
        _update_in_place(built)
    return built


def _update_in_place(optimizer: Any) -> None:
    """The fp32 masters of fp32 weights are the weights: megatron-core would copy each onto itself after every step."""
    for part in optimizer.chained_optimizers:
        part._copy_main_params_to_model_params = lambda: None


def set_learning_rate(optimizer: Any, rate: float, weight_decay: float) -> None:
    """For the next step; groups of norms and biases have a weight decay multiplier of zero."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = weight_decay * group.get("wd_mult", 1.0)


@torch.no_grad()
def gradient_norm(optimizer: Any) -> float:
    """L2 norm of the whole model's gradient, the same on every rank; NaN or infinite when one number on one rank is. Nothing is changed.

    megatron's own `step` updates whatever the norm is: NaN passes its clipping untouched, and infinity makes every weight NaN by it.
    """
    optimizer.prepare_grads()
    return float(optimizer.get_grad_norm())


@torch.no_grad()
def update(optimizer: Any, norm: float, clip_grad: float) -> None:
    """The rest of megatron's `step` after `gradient_norm`: clip by it, change the weights."""
    for part in optimizer.chained_optimizers:
        if parameters := part.get_parameters():  # none where this rank has nothing of that kind, of experts for one
            clip_grad_by_total_norm_fp32(parameters, clip_grad, norm)
    optimizer.step_with_ready_grads()
