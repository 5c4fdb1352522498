"""A Hugging Face folder as the engine sees it: config checked against the model section, tensors read slice by slice."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open

from cpt.config.model import Architecture, ModelConfig
from cpt.core.artifacts import read_json
from cpt.core.errors import MissingInput, Problem, UserError

_FIELDS = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_hidden_size",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_query_groups",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "rms_norm_eps": "norm_epsilon",
    "tie_word_embeddings": "tied_embeddings",
}
"""config.json key -> `model` key."""


class BaseFolder:
    """Weights at `path`: one model.safetensors, or shards with an index."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, model: ModelConfig) -> None:
        """Raises `UserError` naming every field that disagrees, `MissingInput` when config or weights are absent."""
        if not (self.path / "config.json").is_file():
            raise MissingInput(path=self.path / "config.json", why="the base must be a Hugging Face folder", fix=f"cpt base model={model.name}")
        found = read_json(self.path / "config.json")
        if problems := list(self._disagreements(found, model)):
            raise UserError(problems)
        for name in set(self._locate().values()):
            if not (self.path / name).is_file():
                raise MissingInput(path=self.path / name, why="the index promises this shard of the weights", fix="copy the base folder again")

    def _disagreements(self, found: dict[str, Any], model: ModelConfig) -> Iterator[Problem]:
        architecture = (found.get("architectures") or ["unknown"])[0]
        if architecture != model.architecture.value:
            works = ", ".join(item.value for item in Architecture)
            yield Problem(
                where="model.architecture", what=f"the base is {architecture}", why=f"this config is for {model.architecture}", fix=f"a base of: {works}"
            )
        for theirs, ours in _FIELDS.items():
            value, expected = found.get(theirs), getattr(model, ours)
            if not _same(value, expected):
                yield Problem(where=f"model.{ours}", what=f"is {expected}", why=f"the base's config.json says {theirs}={value}", fix=f"model.{ours}={value}")
        theta = rope_theta(found)
        if theta != model.rope_theta:
            yield Problem(where="model.rope_theta", what=f"is {model.rope_theta}", why=f"the base's config.json says {theta}", fix=f"model.rope_theta={theta}")

    def slice(self, name: str, dim: int | None = None, start: int = 0, stop: int = 0) -> torch.Tensor:
        """Tensor `name`, or its part start:stop along `dim`, without reading the rest."""
        with safe_open(self.path / self._locate()[name], framework="pt") as file:
            if dim is None:
                return cast(torch.Tensor, file.get_tensor(name))
            view = file.get_slice(name)
            return cast(torch.Tensor, view[start:stop] if dim == 0 else view[:, start:stop])

    def _locate(self) -> dict[str, str]:
        """Tensor name -> file name."""
        index = self.path / "model.safetensors.index.json"
        if index.is_file():
            return dict(json.loads(index.read_text())["weight_map"])
        single = self.path / "model.safetensors"
        if not single.is_file():
            raise MissingInput(
                path=single, why="a base folder needs its weights as safetensors", fix=f"put model.safetensors (or shards with an index) into {self.path}"
            )
        with safe_open(single, framework="pt") as file:
            return dict.fromkeys(file.keys(), single.name)


def _same(found: Any, expected: Any) -> bool:
    """Floats that went through fp32 or text (1e-05 becomes 9.999999747e-06) are the same."""
    if isinstance(expected, float) and isinstance(found, (int, float)):
        return math.isclose(found, expected, rel_tol=1e-6)
    return bool(found == expected)


def rope_theta(config: dict[str, Any]) -> float:
    """From config.json of transformers 4 (`rope_theta`) or 5 (`rope_parameters`)."""
    return float(config.get("rope_theta") or config.get("rope_parameters", {}).get("rope_theta", 10000.0))
