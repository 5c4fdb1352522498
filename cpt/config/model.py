"""The `model` section: the base's architecture, where its weights are, and its own published peak learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cpt.config.section import Section, positive
from cpt.core.errors import Problem


class Architecture(StrEnum):
    """Hugging Face `architectures` entries that the engine can import and export exactly."""

    LlamaForCausalLM = "LlamaForCausalLM"  # Llama 2, 3, 3.1, SmolLM2, DeepSeek LLM and all that is shaped like them
    MistralForCausalLM = "MistralForCausalLM"
    Qwen2ForCausalLM = "Qwen2ForCausalLM"  # Qwen2, Qwen2.5: bias on queries, keys and values
    Qwen3ForCausalLM = "Qwen3ForCausalLM"  # RMSNorm on each head's query and key


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
        if self.rope_scaling.kind is RopeKind.yarn:
            yield Problem(where="rope_scaling.kind", what="is yarn", why=f"not computed for {self.architecture}", fix="rope_scaling.kind=none or llama3")
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
        heads = self.kv_channels * (2 * self.num_attention_heads + 2 * self.num_query_groups)
        layer = self.hidden_size * (heads + 3 * self.ffn_hidden_size + 2)
        layer += self.qkv_bias * self.kv_channels * (self.num_attention_heads + 2 * self.num_query_groups)
        layer += self.qk_norm * 2 * self.kv_channels
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size
