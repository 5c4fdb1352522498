"""A planted duplicate that must be found before anything is made: near-duplicate removal that silently removes nothing has happened with broken libraries."""

from __future__ import annotations

import numpy as np

from cpt.config.data import DedupConfig
from cpt.core.errors import Problem, UserError
from cpt.corpus.clusters import components, edges_of
from cpt.corpus.signatures import Signatures


def check_canary(config: DedupConfig) -> None:
    """Plant a document twice, one of 200 words changed, and refuse settings under which both stay, or an unrelated one goes."""
    words = [f"canary{number}" for number in range(200)]
    changed = [*words[:100], "sparrow", *words[101:]]
    unrelated = [f"finch{number}" for number in range(200)]
    signatures = Signatures(config)
    keys, numbers = signatures.bands(signatures.of([words, changed, unrelated])), np.arange(3, dtype=np.uint64)
    nodes, firsts = components(np.concatenate([edges_of(band, numbers) for band in keys.T], axis=1))
    if nodes[nodes != firsts].tolist() != [1]:
        raise UserError(
            Problem(
                where="corpus.dedup",
                what=f"{config.bands} bands x {config.rows} rows of {config.ngram}-grams miss a planted near-duplicate",
                why="one changed word in 200 must be found, and an unrelated text kept",
                fix="corpus.dedup.bands=14 corpus.dedup.rows=8 corpus.dedup.ngram=5",
            )
        )
