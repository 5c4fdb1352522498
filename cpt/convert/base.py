"""Getting a base: a folder that is there already, a GGUF file inside a Python package, or random weights for rehearsals."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from cpt.config.model import BaseSource, ModelConfig
from cpt.convert.settings import transformers_config
from cpt.core.artifacts import sync_folder
from cpt.core.errors import MissingInput, Problem, UserError


def obtain_base(model: ModelConfig, folder: Path) -> Path:
    """Put the base's Hugging Face folder at `folder`, whole or not at all; does nothing when it is there.

    Raises `UserError` when the source is absent.
    """
    if (folder / "config.json").is_file():
        return folder
    if model.base_source is BaseSource.folder:
        return _link(model, folder)
    temp = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir(parents=True)
    if model.base_source is BaseSource.gguf_package:
        _from_gguf(gguf_path(model), temp)
    else:
        _random(model, temp)
    os.replace(temp, folder)
    sync_folder(folder.parent)
    return folder


def gguf_path(model: ModelConfig) -> Path:
    """`<module>/<file>` of `model.base_path` on disk, without importing the module."""
    module, _, file = model.base_path.partition("/")
    spec = importlib.util.find_spec(module)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (found := Path(place) / file).is_file():
            return found
    raise UserError(
        Problem(where="model.base_path", what=f"{model.base_path} is not installed", why="the base's weights are in that package", fix="make setup")
    )


def _link(model: ModelConfig, folder: Path) -> Path:
    source = Path(model.base_path)
    if not (source / "config.json").is_file():
        raise MissingInput(path=source / "config.json", why=f"model.base_path of {model.name} must be a Hugging Face folder", fix="model.base_path=<folder>")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(source.absolute())
    return folder


def _from_gguf(path: Path, folder: Path) -> None:
    """Dequantized weights as bf16 safetensors. The loaded object cannot be saved as it is, so the model is rebuilt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place: dict[str, Any] = {"gguf_file": path.name}
    loaded = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **place)
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    rebuilt: Any = type(loaded)(type(loaded.config)(**settings))
    rebuilt.load_state_dict(loaded.state_dict())
    rebuilt.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(path.parent, **place).save_pretrained(folder)


def _random(model: ModelConfig, folder: Path, seed: int = 0) -> None:
    """Norms and biases as well: all ones and all zeros would hide one that was loaded into the wrong place."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = Path(model.base_path)
    if not tokenizer.is_file():
        raise MissingInput(path=tokenizer, why="random weights need a tokenizer to go with", fix="model.base_path=<tokenizer.json>")
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), eos_token=model.end_of_document).save_pretrained(folder)
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(transformers_config(model), dtype=torch.float32)
    for name, parameter in made.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    made.save_pretrained(folder)
