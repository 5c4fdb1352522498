"""fp8 in Transformer Engine's layers: what megatron-core is told, and whether this device can do it.

Scales are taken of the very tensors that are multiplied, so there is no past that a checkpoint would have to keep.
"""

from __future__ import annotations

from typing import Any

from cpt.config.training import Fp8
from cpt.core.errors import Problem, UserError

_QUESTIONS = {Fp8.tensorwise: "is_fp8_available", Fp8.blockwise: "is_fp8_block_scaling_available", Fp8.mxfp8: "is_mxfp8_available"}
"""Of transformer_engine.pytorch, each answering whether, and why not."""


def settings(choice: Fp8) -> dict[str, Any]:
    """For TransformerConfig. One scale for a whole tensor of gradients needs the range of e5m2; finer ones keep the digits of e4m3."""
    return {} if choice is Fp8.none else {"fp8": "hybrid" if choice is Fp8.tensorwise else "e4m3", "fp8_recipe": choice.value}


def check(choice: Fp8) -> None:
    """Raises `UserError` with Transformer Engine's own reason when this device cannot multiply so. Call when it is installed."""
    if choice is Fp8.none:
        return
    from transformer_engine import pytorch

    ask = getattr(pytorch, _QUESTIONS[choice], None)
    able, why = ask(return_reason=True) if ask else (False, f"this Transformer Engine has no {_QUESTIONS[choice]}: it is too old")
    if not able:
        raise UserError(Problem(where="train.fp8", what=f"is {choice}", why=why, fix="train.fp8=none"))
