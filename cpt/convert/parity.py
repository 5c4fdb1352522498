"""What the Hugging Face base answers on fixed text, computed once and kept beside it, for the step-0 gate.

The reference is fp32 logits of transformers for one short sequence. It is small (tokens x vocabulary), so that a 70B run
can be held against it without loading the base a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

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
    """Compute and keep the reference; reads it when it is there. Needs the base in one process, fp32."""
    path = folder / FILE
    if not path.is_file():
        save_file(_compute(folder), path)
    return read_reference(folder)


def read_reference(folder: Path) -> Reference:
    """What `make_reference` left in `folder`."""
    tensors = load_file(folder / FILE)
    return Reference(tensors["tokens"], tensors["logits"])


@torch.no_grad()
def _compute(folder: Path) -> dict[str, torch.Tensor]:
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokens = torch.tensor([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    return {"tokens": tokens, "logits": model(tokens).logits.float().contiguous()}
