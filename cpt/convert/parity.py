"""What the Hugging Face base answers on fixed text, computed once and kept beside it, for the step-0 gate.

The reference is fp32 logits of transformers for one short sequence. It is small (tokens x vocabulary), so that a 70B run
can be held against it without computing the base a second time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer

from cpt.convert.folder import BaseFolder
from cpt.convert.streaming import stream, without_weights
from cpt.core.artifacts import write_bytes

FILE = "parity_reference.safetensors"
TEXT = (
    "Continued pretraining takes a model that already knows a great deal and teaches it a domain. "
    "In 1815 the harvest failed; 27 ships waited in the harbor, and nobody could say why. "
    "Der Vertrag gilt ab sofort. La livraison est gratuite. Price: $19.99, size M, color blue, 4 items left."
)


@dataclass(frozen=True)
class Reference:
    """tokens [1, s] int64, logits [1, s, v] fp32."""

    tokens: torch.Tensor
    logits: torch.Tensor

    @property
    def loss(self) -> float:
        """The base's loss on the reference text, nats a token."""
        return next_token_loss(self.logits, self.tokens)


def next_token_loss(logits: torch.Tensor, tokens: torch.Tensor) -> float:
    """Mean cross entropy of predicting each next token, nats."""
    return float(torch.nn.functional.cross_entropy(logits[0, :-1].double(), tokens[0, 1:]))


def relative_difference(logits: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest difference between two sets of logits, relative to the largest logit (or absolute below one).

    fp32 carries 24 bits: logits of magnitude 30 cannot agree to better than about 2e-6 each, whatever the order of sums.
    """
    scale = max(1.0, float(reference.abs().max()))
    return float((logits - reference).abs().max()) / scale


def make_reference(folder: Path) -> Reference:
    """Compute and keep the reference; reads it when it is there."""
    path = folder / FILE
    if not path.is_file():
        tokens = torch.tensor([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids])
        write_bytes(path, save({"tokens": tokens, "logits": transformers_logits(folder, tokens)}))
    return read_reference(folder)


def read_reference(folder: Path) -> Reference:
    """What `make_reference` left in `folder`."""
    tensors = load_file(folder / FILE)
    return Reference(tensors["tokens"], tensors["logits"])


@torch.no_grad()
def transformers_logits(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    """fp32 logits [1, s, v] of tokens [1, s], one layer in memory at a time, on the CPU whatever the machine has."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with without_weights():
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
    weights = BaseFolder(folder)
    stream(model, lambda name: _parameter(weights, name), torch.device("cpu"))
    return cast(torch.Tensor, model(tokens, use_cache=False).logits.float().contiguous())


def _parameter(weights: BaseFolder, name: str) -> torch.Tensor:
    """A parameter of transformers' model, which shows a tied output under its own name and stacks the experts that files hold one by one."""
    if name == "lm_head.weight" and name not in weights.tensors:
        return weights.slice("model.embed_tokens.weight")
    if found := re.fullmatch(r"(.+\.experts)\.(gate_up_proj|down_proj)", name):
        prefix, parts = found.group(1), ("gate_proj", "up_proj") if found.group(2) == "gate_up_proj" else ("down_proj",)
        count = sum(other.startswith(f"{prefix}.") and other.endswith(".down_proj.weight") for other in weights.tensors)
        return torch.stack([torch.cat([weights.slice(f"{prefix}.{expert}.{part}.weight") for part in parts]) for expert in range(count)])
    return weights.slice(name)
