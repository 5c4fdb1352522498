"""A Hugging Face folder as the engine sees it: everything in it checked against the model section, tensors read slice by slice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open

from cpt.config.model import ModelConfig
from cpt.convert.settings import disagreements
from cpt.convert.table import table
from cpt.core.errors import MissingInput, Problem, UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_DTYPES = ("F32", "BF16", "F16")
_AGAIN = "copy the base folder again"


@dataclass(frozen=True)
class Stored:
    """Where a tensor is and what its file's header says of it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


class BaseFolder:
    """Weights at `path` as safetensors: one model.safetensors, or shards with an index."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, model: ModelConfig) -> None:
        """Config, shards, and names, shapes and types of all tensors; no weights are read.

        Raises `UserError` naming everything that is wrong, `MissingInput` when config or weights are absent.
        """
        if not (self.path / "config.json").is_file():
            raise MissingInput(path=self.path / "config.json", why="the base must be a Hugging Face folder", fix=f"cpt base model={model.name}")
        if problems := list(disagreements(self.path / "config.json", model)) or list(self._wrong_tensors(model)):
            raise UserError(problems)

    def _wrong_tensors(self, model: ModelConfig) -> Iterator[Problem]:
        expected = {source.name: source.shape for row in table(model).values() for source in row.sources}
        for name in sorted(expected.keys() - self.tensors.keys()):
            yield self._problem(name, "is missing", f"{model.architecture} has it", _AGAIN)
        for name in sorted(self.tensors.keys() - expected.keys()):
            if not self._is_copy(name, model):
                yield self._problem(name, "is not known", f"the engine computes {model.architecture} without it", "a base without it")
        for name in sorted(expected.keys() & self.tensors.keys()):
            found = self.tensors[name]
            if found.shape != expected[name]:
                yield self._problem(name, f"has shape {list(found.shape)}", f"the model section makes it {list(expected[name])}", _AGAIN)
            if found.dtype not in _DTYPES:
                yield self._problem(name, f"is {found.dtype}", f"weights are one of {', '.join(_DTYPES)}", "a base that is not quantized")

    def _problem(self, name: str, what: str, why: str, fix: str) -> Problem:
        where = self.tensors[name].file if name in self.tensors else self.path
        return Problem(where=str(where), what=f"{name} {what}", why=why, fix=fix)

    def _is_copy(self, name: str, model: ModelConfig) -> bool:
        """Old Llamas carry their rotary frequencies, which follow from the config; some tied bases a second copy of the embedding."""
        if name == "lm_head.weight" and model.tied_embeddings:
            return torch.equal(self.slice(name), self.slice("model.embed_tokens.weight"))
        return name.endswith("rotary_emb.inv_freq")

    def slice(self, name: str, dim: int | None = None, start: int = 0, stop: int = 0) -> torch.Tensor:
        """Tensor `name`, or its part start:stop along `dim`, without reading the rest. Raises `UserError` when there is none."""
        if name not in self.tensors:
            raise UserError(self._problem(name, "is missing", "it was asked for", _AGAIN))
        with _open(self.tensors[name].file) as file:
            if dim is None:
                return cast(torch.Tensor, file.get_tensor(name))
            view = file.get_slice(name)
            return cast(torch.Tensor, view[start:stop] if dim == 0 else view[:, start:stop])

    @cached_property
    def tensors(self) -> dict[str, Stored]:
        """Everything that the shards' own headers name. Raises `UserError` for a shard that is cut or no safetensors."""
        found: dict[str, Stored] = {}
        for path in self._shards():
            with _open(path) as file:
                for name in file.keys():  # noqa: SIM118 - a handle, not a dictionary
                    view = file.get_slice(name)
                    found[name] = Stored(path, tuple(view.get_shape()), view.get_dtype())
        return found

    def _shards(self) -> list[Path]:
        index = self.path / INDEX
        names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {SINGLE}
        for name in sorted(names):
            if not (self.path / name).is_file():
                why = "the index promises this shard of the weights" if index.is_file() else "a base folder needs its weights as safetensors"
                raise MissingInput(path=self.path / name, why=why, fix=f"put {SINGLE}, or shards with an index, into {self.path}")
        return [self.path / name for name in sorted(names)]


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise UserError(Problem(where=str(path), what=f"cannot be read: {error}", why="the file is cut or no safetensors", fix=_AGAIN)) from None
