"""Bytes that groups of ranks exchange in one optimizer step: what a hop costs, so that rings and pipelines can be weighed against each other."""

from __future__ import annotations

from dataclasses import dataclass

from cpt.config.run import RunConfig
from cpt.config.training import Precision
from cpt.topology.layout import Group, from_config

_GRADIENT_BYTES = 4
"""Gradients are reduced in fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Bytes a step between one rank and its next in the ring or pipeline."""

    tp: float = 0.0
    cp: float = 0.0
    dp: float = 0.0
    pp: float = 0.0

    def of(self, group: Group) -> float:
        """By group."""
        return {Group.tp: self.tp, Group.cp: self.cp, Group.dp: self.dp, Group.pp: self.pp}[group]


def traffic(config: RunConfig) -> Traffic:
    """Estimate for a dense model; rings move (n-1)/n of what each of n ranks holds in the end.

    DP: one reduce-scatter of fp32 gradients and one all-gather of weights. PP: activations there and gradients back, for each micro-batch and chunk.
    TP: four gathers or scatters a layer forward, as many backward. CP: keys and values once around forward, they and their gradients backward.
    """
    layout, model, train = from_config(config), config.model, config.train
    number = 2 if train.precision is Precision.bf16 else 4
    micro_batches = train.global_batch_size / (train.micro_batch_size * layout.dp)
    layers = model.num_layers / layout.pp
    tokens = train.micro_batch_size * train.sequence_length / layout.cp
    shard = model.parameters / (layout.tp * layout.pp)
    holders = layout.dp * layout.cp
    activations = tokens * model.hidden_size * number
    cut = layout.tp if config.parallel.sequence_parallel else 1
    keys = 2 * tokens * model.num_query_groups * model.kv_channels / layout.tp * number
    return Traffic(
        tp=micro_batches * layers * 8 * activations * (layout.tp - 1) / layout.tp,
        cp=micro_batches * layers * 3 * keys * (layout.cp - 1),
        dp=shard * (_GRADIENT_BYTES + number) * (holders - 1) / holders,
        pp=micro_batches * layout.virtual * 2 * activations / cut if layout.pp > 1 else 0.0,
    )
