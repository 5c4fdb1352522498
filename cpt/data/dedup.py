"""Duplicates, exact and near, within and across sources. The first copy stays: order sources by how much they are worth.

Near duplicates share a MinHash LSH band (word 5-grams, 14 bands x 8 rows: FineWeb's numbers). With similarity s two documents
meet with probability 1 - (1 - s^8)^14: 0.92 at 0.8, 0.05 at 0.5. A document is dropped when it meets a kept one; chains are not followed.
All signatures live in one process: tens of millions of documents, not billions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

from rensa import RMinHash, RMinHashLSH

from cpt.config.data import DedupConfig
from cpt.core.errors import Problem, UserError

_WORD = re.compile(r"\w+")


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
    """Remembers the signatures of kept documents."""

    def __init__(self, config: DedupConfig, seed: int) -> None:
        self._ngram = config.ngram
        self._permutations = config.bands * config.rows
        self._seed = seed
        # The threshold is rensa's own filter on top of the bands; 0 leaves the decision to the bands.
        self._index = RMinHashLSH(threshold=0.0, num_perm=self._permutations, num_bands=config.bands)
        self._kept = 0

    def are_new(self, texts: Sequence[str]) -> list[bool]:
        """For each text, in order: does it differ from every text kept so far?"""
        signatures = RMinHash.from_token_sets([shingles(text, self._ngram) for text in texts], num_perm=self._permutations, seed=self._seed)
        return [self._keep(signature) for signature in signatures]

    def _keep(self, signature: RMinHash) -> bool:
        if self._index.query(signature):
            return False
        self._index.insert(self._kept, signature)
        self._kept += 1
        return True


def shingles(text: str, ngram: int) -> list[str]:
    """The set of `ngram` neighboring lower-case words; a shorter text is one shingle."""
    words = _WORD.findall(text.lower())
    return list({" ".join(words[i : i + ngram]) for i in range(max(1, len(words) - ngram + 1))})


def check_canary(config: DedupConfig, seed: int) -> None:
    """Plant a document twice, one of 200 words changed, and refuse settings under which it survives.

    Near-duplicate removal that silently removes nothing has happened with broken hash libraries; this fails instead.
    """
    words = [f"canary{number}" for number in range(200)]
    changed = [*words[:100], "sparrow", *words[101:]]
    unrelated = [f"finch{number}" for number in range(200)]
    found = NearDuplicates(config, seed).are_new([" ".join(words), " ".join(changed), " ".join(unrelated)])
    if found != [True, False, True]:
        raise UserError(
            Problem(
                where="corpus.dedup",
                what=f"{config.bands} bands x {config.rows} rows of {config.ngram}-grams miss a planted near-duplicate",
                why="one changed word in 200 must be found, and an unrelated text kept",
                fix="corpus.dedup.bands=14 corpus.dedup.rows=8 corpus.dedup.ngram=5",
            )
        )
