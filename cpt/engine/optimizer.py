"""Distributed AdamW, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.optimizer import get_megatron_optimizer

from cpt.config.training import Decay, OptimizerConfig, ParallelConfig, Precision, ScheduleConfig
from cpt.engine import adam, grad_norm


def build_optimizer(model: Any, optimizer: OptimizerConfig, parallel: ParallelConfig, precision: Precision) -> Any:
    """megatron-core's DistributedOptimizer over a DDP-wrapped model; master weights and moments fp32, sharded over DP."""
    adam.install()
    grad_norm.install()
    bf16 = precision is Precision.bf16
    return get_megatron_optimizer(
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
        [model],
    )


def set_learning_rate(optimizer: Any, rate: float, weight_decay: float) -> None:
    """For the next step; groups of norms and biases have a weight decay multiplier of zero."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = weight_decay * group.get("wd_mult", 1.0)


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleConfig) -> float:
    """Rate of update `step` (0-based) out of `steps`: linear warm-up from peak/warmup, then decay to peak * min_lr_ratio.

    Cosine as in Loshchilov & Hutter (2016): min + (peak - min) * (1 + cos(pi * progress)) / 2.
    """
    warmup = max(1, round(schedule.warmup_share * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.decay is Decay.constant:
        return peak
    floor = peak * schedule.min_lr_ratio
    progress = min(1.0, (step - warmup + 1) / max(1, steps - warmup))
    shape = (1 + math.cos(math.pi * progress)) / 2 if schedule.decay is Decay.cosine else 1 - progress
    return floor + (peak - floor) * shape
