"""The `model` section: the base's architecture, where its weights are, and its own published peak learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cpt.config.blocks import MlaConfig, MoeConfig
from cpt.config.section import Section, positive
from cpt.core.errors import Problem


class Architecture(StrEnum):
    """Hugging Face `architectures` entries that the engine can import and export exactly."""

    LlamaForCausalLM = "LlamaForCausalLM"  # Llama 2, 3, 3.1, SmolLM2, DeepSeek LLM and all that is shaped like them
    MistralForCausalLM = "MistralForCausalLM"
    Qwen2ForCausalLM = "Qwen2ForCausalLM"  # Qwen2, Qwen2.5: bias on queries, keys and values
    Qwen3ForCausalLM = "Qwen3ForCausalLM"  # RMSNorm on each head's query and key
    DeepseekV2ForCausalLM = "DeepseekV2ForCausalLM"  # V2-Lite: multi-latent attention without a low-rank query, routed experts


class BaseSource(StrEnum):
    """Where the base's weights come from."""

    folder = "folder"  # a Hugging Face folder at `base_path`
    gguf_package = "gguf_package"  # a GGUF file inside an installed Python package
    random = "random"  # random weights, for tests and rehearsals


class RopeKind(StrEnum):
    """How the base stretched its rotary frequencies after its first training length."""

    none = "none"
    llama3 = "llama3"  # Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between
    yarn = "yarn"  # arXiv 2309.00071


@dataclass(kw_only=True, slots=True)
class RopeScaling(Section):
    """What `kind` needs of it counts, the rest does not; the names are those of Hugging Face's `rope_parameters`."""

    kind: RopeKind = RopeKind.none
    factor: float = 1.0
    original_max_position_embeddings: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0

    def problems(self) -> Iterator[Problem]:
        if self.kind is not RopeKind.none:
            yield from positive(self, "factor", "original_max_position_embeddings")
        if self.kind is RopeKind.none and self.factor != 1.0:
            yield Problem(where="factor", what=f"is {self.factor}", why="kind=none scales nothing", fix="kind=llama3, or factor=1.0")


@dataclass(kw_only=True, slots=True)
class ModelConfig(Section):
    """Names follow megatron-core's TransformerConfig, values the base's own config.json (checked when it is imported)."""

    name: str = ""
    architecture: Architecture = Architecture.LlamaForCausalLM
    num_layers: int = 0
    hidden_size: int = 0
    ffn_hidden_size: int = 0
    num_attention_heads: int = 0
    num_query_groups: int = 0
    kv_channels: int = 0
    vocab_size: int = 0
    max_position_embeddings: int = 0
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    sliding_window: int = 0
    """Keys that a query of the base sees; 0 all before it. The engine sees all: exact for sequences no longer than this."""
    mla: MlaConfig = field(default_factory=MlaConfig)
    moe: MoeConfig = field(default_factory=MoeConfig)
    norm_epsilon: float = 1e-5
    tied_embeddings: bool = False
    base_source: BaseSource = BaseSource.folder
    base_path: str = ""
    """`folder`: its path; `gguf_package`: `<module>/<file>`; `random`: the tokenizer.json that goes with it."""
    end_of_document: str = ""
    """The token that ends a document in the tokenized data."""
    base_peak_lr: float = 0.0
    base_peak_lr_source: str = ""
    """Where the number is published; where it never was, that, and whose number stands here and why."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(
            self, "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels", "vocab_size", "base_peak_lr"
        )
        if self.num_query_groups > 0 and self.num_attention_heads % self.num_query_groups:
            yield Problem(
                where="num_query_groups",
                what=f"is {self.num_query_groups}",
                why=f"must divide num_attention_heads={self.num_attention_heads}",
                fix="take both from the base's config.json",
            )
        if self.rope_scaling.kind is (RopeKind.llama3 if self.mla else RopeKind.yarn):
            works = "yarn" if self.mla else "llama3"
            yield Problem(
                where="rope_scaling.kind",
                what=f"is {self.rope_scaling.kind}",
                why=f"not computed for {self.architecture}",
                fix=f"rope_scaling.kind=none or {works}",
            )
        latent = self.architecture is Architecture.DeepseekV2ForCausalLM
        for name, section in (("mla.kv_lora_rank", self.mla), ("moe.num_experts", self.moe)):
            if bool(section) != latent:
                why = f"{self.architecture} {'has' if latent else 'has no'} {'latent attention' if section is self.mla else 'experts'}"
                fix = "the number of the base's config.json" if latent else f"{name}=0"
                yield Problem(where=name, what=f"is {getattr(section, name.split('.')[1])}", why=why, fix=fix)
        if not self.base_path:
            yield Problem(where="base_path", what="is empty", why="the base's weights must come from somewhere", fix="model.base_path=/path/to/hf-folder")

    @property
    def qkv_bias(self) -> bool:
        """Queries, keys and values have a bias; nothing else in any family has one."""
        return self.architecture is Architecture.Qwen2ForCausalLM

    @property
    def qk_norm(self) -> bool:
        """Each head's query and key pass an RMSNorm over `kv_channels` before they are rotated."""
        return self.architecture is Architecture.Qwen3ForCausalLM

    @property
    def longest_sequence(self) -> int:
        """Tokens in a row that the engine computes as the base does."""
        return min(self.max_position_embeddings, self.sliding_window or self.max_position_embeddings)

    @property
    def parameters(self) -> int:
        """Number of parameters, embeddings counted once when tied."""
        return self._parameters(self.moe.num_experts)

    @property
    def active_parameters(self) -> int:
        """Those that one token passes: of the routed experts only the chosen ones."""
        return self._parameters(self.moe.topk)

    def _parameters(self, experts: int) -> int:
        hidden, routed = self.hidden_size, self.moe.routed_layers(self.num_layers)
        dense = (self.num_layers - routed) * 3 * hidden * self.ffn_hidden_size
        sparse = routed * ((experts + self.moe.shared_experts) * self.moe.expert_parameters(hidden) + hidden * self.moe.num_experts)
        layers = self.num_layers * (sum(self.attention_parameters) + 2 * hidden) + dense + sparse
        return layers + self.vocab_size * hidden * (1 if self.tied_embeddings else 2) + hidden

    @property
    def attention_parameters(self) -> tuple[int, int]:
        """(matrices with their biases, which tensor parallelism cuts; norms, which it does not) of one layer's attention."""
        if self.mla:
            return self.mla.attention_parameters(self.hidden_size, self.num_attention_heads)
        queries, both = self.num_attention_heads, self.num_attention_heads + self.num_query_groups
        bias = self.qkv_bias * self.kv_channels * (queries + 2 * self.num_query_groups)
        return 2 * self.hidden_size * self.kv_channels * both + bias, self.qk_norm * 2 * self.kv_channels
