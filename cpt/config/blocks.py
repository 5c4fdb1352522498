"""Sections of `model` for layers that Llama has not: `mla`, multi-latent attention, and `moe`, routed experts. All zero: absent.

Names follow megatron-core; the numbers are those of the base's config.json, under the keys given here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cpt.config.section import Section, positive
from cpt.core.errors import Problem


@dataclass(kw_only=True, slots=True)
class MlaConfig(Section):
    """Multi-latent attention without a low-rank query (DeepSeek-V2-Lite, arXiv 2405.04434 section 2.1)."""

    kv_lora_rank: int = 0
    """Width of the latent from which keys and values are made; 0: the model has ordinary attention."""
    qk_head_dim: int = 0
    """Channels of a head's query and key without position (`qk_nope_head_dim`)."""
    qk_pos_emb_head_dim: int = 0
    """Rotated channels; the key's are shared by all heads (`qk_rope_head_dim`)."""
    v_head_dim: int = 0

    def problems(self) -> Iterator[Problem]:
        if self:
            yield from positive(self, "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim")

    def __bool__(self) -> bool:
        return self.kv_lora_rank > 0

    @property
    def query_channels(self) -> int:
        """Of one head's query and key, both parts."""
        return self.qk_head_dim + self.qk_pos_emb_head_dim

    def attention_parameters(self, hidden: int, heads: int) -> tuple[int, int]:
        """(matrices, norms) of one layer's attention."""
        queries = hidden * heads * self.query_channels
        down = hidden * (self.kv_lora_rank + self.qk_pos_emb_head_dim)
        up = self.kv_lora_rank * heads * (self.qk_head_dim + self.v_head_dim)
        return queries + down + up + heads * self.v_head_dim * hidden, self.kv_lora_rank


@dataclass(kw_only=True, slots=True)
class MoeConfig(Section):
    """Each token passes the shared experts and the `topk` routed ones that a softmax over all experts prefers."""

    num_experts: int = 0
    """Routed experts of a layer (`n_routed_experts`); 0: every layer is dense."""
    topk: int = 0
    """`num_experts_per_tok`."""
    ffn_hidden_size: int = 0
    """Width of one expert (`moe_intermediate_size`)."""
    shared_experts: int = 0
    """Experts of that width that every token passes (`n_shared_experts`)."""
    dense_layers: int = 0
    """Layers before the first with experts (`first_k_dense_replace`)."""
    topk_scaling_factor: float = 1.0
    """On the weights of the chosen experts, which are not made to add up to one (`routed_scaling_factor`)."""
    aux_loss_coefficient: float = 0.0
    """Weight of the balance loss of each sequence, which keeps routing spread out. It moves the gradient, and is not in the reported loss. 0 trains on the
    language-model loss alone: faithful to the domain, and safe as long as `moe/imbalance` in the journal does not climb."""

    def problems(self) -> Iterator[Problem]:
        if self:
            yield from positive(self, "topk", "ffn_hidden_size")
            if self.topk > self.num_experts:
                yield Problem(where="topk", what=f"is {self.topk}", why=f"there are {self.num_experts} experts", fix=f"topk={self.num_experts}")
            if self.aux_loss_coefficient < 0:
                yield Problem(
                    where="aux_loss_coefficient",
                    what=f"is {self.aux_loss_coefficient}",
                    why="a negative weight would drive all tokens to one expert",
                    fix="aux_loss_coefficient=0",
                )

    def __bool__(self) -> bool:
        return self.num_experts > 0

    def routed_layers(self, num_layers: int) -> int:
        """How many of the model's layers have experts."""
        return max(0, num_layers - self.dense_layers) if self else 0

    def expert_parameters(self, hidden: int) -> int:
        """Of one expert."""
        return 3 * hidden * self.ffn_hidden_size
