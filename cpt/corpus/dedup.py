"""Duplicates, exact and near, within and across sources. The first copy stays: order sources by how much they are worth.

Near duplicates share a MinHash band (`signatures`). A document is dropped when it meets a kept one; chains are not followed.
All bands live in one process: tens of millions of documents, not billions.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from cpt.config.data import DedupConfig
from cpt.core.errors import Problem, UserError
from cpt.corpus.signatures import Signatures


class ExactDuplicates:
    """Remembers texts up to case and white space."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def is_new(self, text: str) -> bool:
        """True once for each text."""
        key = blake2b(" ".join(text.lower().split()).encode(), digest_size=16).digest()
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


class NearDuplicates:
    """Remembers the bands of kept documents."""

    def __init__(self, config: DedupConfig) -> None:
        self._ngram, self._signatures = config.ngram, Signatures(config)
        self._kept: list[set[int]] = [set() for _ in range(config.bands)]

    def are_new(self, documents: Sequence[Sequence[str]]) -> list[bool]:
        """For each document, given as simplified words, in order: does it differ from every one kept so far? One without an n-gram always does."""
        long = [words for words in documents if len(words) >= self._ngram]
        keys = iter(self._signatures.bands(self._signatures.of(long)).tolist())
        return [len(words) < self._ngram or self._keep(next(keys)) for words in documents]

    def _keep(self, keys: Sequence[int]) -> bool:
        if any(key in kept for key, kept in zip(keys, self._kept, strict=True)):
            return False
        for key, kept in zip(keys, self._kept, strict=True):
            kept.add(key)
        return True


def check_canary(config: DedupConfig) -> None:
    """Plant a document twice, one of 200 words changed, and refuse settings under which it survives.

    Near-duplicate removal that silently removes nothing has happened with broken hash libraries; this fails instead.
    """
    words = [f"canary{number}" for number in range(200)]
    changed = [*words[:100], "sparrow", *words[101:]]
    unrelated = [f"finch{number}" for number in range(200)]
    found = NearDuplicates(config).are_new([words, changed, unrelated])
    if found != [True, False, True]:
        raise UserError(
            Problem(
                where="corpus.dedup",
                what=f"{config.bands} bands x {config.rows} rows of {config.ngram}-grams miss a planted near-duplicate",
                why="one changed word in 200 must be found, and an unrelated text kept",
                fix="corpus.dedup.bands=14 corpus.dedup.rows=8 corpus.dedup.ngram=5",
            )
        )
