"""`Document`: what readers make, filters judge and the tokenizer ends with one end-of-document token."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `id` is unique in its source and kept from the reader to the tokenized data."""

    id: str
    text: str
    family: str = ""
    """What must stay on one side of the train : held-out split (a listing's source package); empty means the document alone."""
    title: str = ""
    topic: str = ""
    truth: bool | None = None
    """Whether it really is of the domain; None where nobody knows."""

    @property
    def bytes(self) -> int:
        """UTF-8 length."""
        return len(self.text.encode())


def draw(seed: int, *words: str) -> int:
    """A 64-bit number that depends on `seed` and `words` alone: a random order that survives other documents coming and going."""
    return int.from_bytes(blake2b("\0".join([str(seed), *words]).encode(), digest_size=8).digest(), "big")


def drawn(seed: int, id: str, share: float, what: str = "sample") -> bool:
    """Whether a document is among the share that is taken, whoever else is; draws with another `what` have nothing to do with each other."""
    return share >= 1 or draw(seed, what, id) < share * 2**64
