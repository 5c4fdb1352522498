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

    @property
    def bytes(self) -> int:
        """UTF-8 length."""
        return len(self.text.encode())


def draw(seed: int, *words: str) -> int:
    """A 64-bit number that depends on `seed` and `words` alone: a random order that survives other documents coming and going."""
    return int.from_bytes(blake2b("\0".join([str(seed), *words]).encode(), digest_size=8).digest(), "big")


def sample_bytes(documents: list[Document], max_bytes: int, seed: int) -> list[Document]:
    """Documents drawn without replacement until `max_bytes` of text, in their original order; 0 takes all."""
    if not max_bytes:
        return documents
    chosen, size = set(), 0
    for index in sorted(range(len(documents)), key=lambda i: draw(seed, "sample", documents[i].id)):
        if size >= max_bytes:
            break
        chosen.add(index)
        size += documents[index].bytes
    return [document for index, document in enumerate(documents) if index in chosen]
