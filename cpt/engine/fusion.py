"""Which elementwise work is done in one kernel: RMSNorm, SwiGLU, cross entropy. One choice for all; what it comes to is said.

plain: torch operators one by one, Hugging Face's own arithmetic. fused: torch's rms_norm, megatron-core's SwiGLU and cross entropy, which it
compiles with torch.compile on CUDA. They round less and keep less for the backward pass: of SwiGLU only what goes in.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from cpt.config.parallel import Fusion
from cpt.config.training import Precision
from cpt.engine import accumulate
from cpt.engine.norm import FusedRMSNorm, RMSNorm


def settings(choice: Fusion, precision: Precision) -> dict[str, Any]:
    """For TransformerConfig. `auto` is fused on CUDA, plain on CPUs: there nothing is compiled, and nothing is gained."""
    fused = choice is Fusion.fused or (choice is Fusion.auto and torch.cuda.is_available())
    return {
        "bias_activation_fusion": fused,
        # megatron-core's own casts the gradient to bf16, whatever the logits are: right in bf16, silently wrong in fp32.
        "cross_entropy_loss_fusion": fused and precision is Precision.bf16,
        "cross_entropy_fusion_impl": "native",
        "gradient_accumulation_fusion": accumulate.install(precision) != accumulate.NONE,
    }


def norm_class(config: TransformerConfig) -> type[RMSNorm]:
    """The norm that goes with the settings."""
    return FusedRMSNorm if config.bias_activation_fusion else RMSNorm


def describe(choice: Fusion, precision: Precision) -> str:
    """What the choice comes to on this machine, in words."""
    chosen = settings(choice, precision)
    fused = [*(["RMSNorm", "SwiGLU"] if chosen["bias_activation_fusion"] else []), *(["cross entropy"] if chosen["cross_entropy_loss_fusion"] else [])]
    return f"fused: {', '.join(fused) or 'nothing'}; weight gradients added by: {accumulate.install(precision)}"
