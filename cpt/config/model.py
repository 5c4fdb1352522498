"""The `model` section: the base's architecture, where its weights are, and its own published peak learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cpt.config.section import Section, positive
from cpt.core.errors import Problem


class Architecture(StrEnum):
    """Hugging Face `architectures` entries that the engine can import and export exactly."""

    LlamaForCausalLM = "LlamaForCausalLM"


class BaseSource(StrEnum):
    """Where the base's weights come from."""

    folder = "folder"  # a Hugging Face folder at `base_path`
    gguf_package = "gguf_package"  # a GGUF file inside an installed Python package
    random = "random"  # random weights, for tests and rehearsals


@dataclass(kw_only=True, slots=True)
class RopeScaling(Section):
    """Llama 3.1 frequency scaling; `factor` 0 means none."""

    factor: float = 0.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


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
    norm_epsilon: float = 1e-5
    tied_embeddings: bool = False
    base_source: BaseSource = BaseSource.folder
    base_path: str = ""
    """`folder`: its path; `gguf_package`: `<module>/<file>`; `random`: the tokenizer.json that goes with it."""
    end_of_document: str = ""
    """The token that ends a document in the tokenized data."""
    base_peak_lr: float = 0.0
    base_peak_lr_source: str = ""

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
        if not self.base_path:
            yield Problem(where="base_path", what="is empty", why="the base's weights must come from somewhere", fix="model.base_path=/path/to/hf-folder")

    @property
    def parameters(self) -> int:
        """Number of parameters, embeddings counted once when tied."""
        heads = self.kv_channels * (2 * self.num_attention_heads + 2 * self.num_query_groups)
        layer = self.hidden_size * (heads + 3 * self.ffn_hidden_size + 2)
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return self.num_layers * layer + embeddings + self.hidden_size
