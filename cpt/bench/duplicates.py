"""Near-duplicates planted at known likeness, and which of them ours and datatrove's chain remove: the part of `cpt bench data` that is about finding.

Passages of the corpus' own words; of each pair, the copy has words replaced until exactly so many of the 5-grams of both are in both. Every pair is
measured on sets of tuples of words, without any hash.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

import numpy as np

LEVELS = (0.7, 0.8, 0.9)
"""Jaccard similarity: of the distinct 5-grams of both, the share that both have."""
CLOSE = 0.005
"""How far from its level a pair may be."""
WORDS = 400
"""Of a passage: so many that one word more or less is within `CLOSE`."""
_PIECE = 20
"""Words of the corpus that stay together in a passage."""
_NGRAM = 5

Simplify = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Planted:
    """Texts in the order in which they are read, and per level the places of both texts of each pair."""

    texts: list[str]
    pairs: dict[float, list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Found:
    """Per level, the share of pairs of which a text is removed; and of what is removed, the share that had to be."""

    recall: dict[float, float]
    precision: float


def similarity(first: Sequence[str], second: Sequence[str]) -> float:
    """Jaccard's, of words in rows of five."""
    one, other = (set(zip(*(words[start:] for start in range(_NGRAM)), strict=False)) for words in (first, second))
    return len(one & other) / max(1, len(one | other))


def expected(level: float, bands: int, rows: int) -> float:
    """The share that MinHash finds in theory (Leskovec et al., Mining of Massive Datasets, section 3.4.2)."""
    return float(1 - (1 - level**rows) ** bands)


def plant(words: Sequence[str], pairs: int, simplify: Simplify, seed: int = 1) -> Planted:
    """`pairs` of each level and as many passages that are copied by none. `words`: the corpus' own, in their order."""
    chance = random.Random(seed)
    passages, made = _passages(words, chance), list[tuple[float, str, str]]()
    for level in LEVELS:
        made += [(level, *_pair(level, passages, words, simplify, chance)) for _ in range(pairs)]
    texts = [text for _, *both in made for text in both] + [" ".join(next(passages)) for _ in made]
    order = list(range(len(texts)))
    chance.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    found: dict[float, list[tuple[int, int]]] = {level: [] for level in LEVELS}
    for number, (level, _, _) in enumerate(made):
        found[level].append((place[2 * number], place[2 * number + 1]))
    return Planted([texts[old] for old in order], found)


def count(planted: Planted, removed: set[int]) -> Found:
    """Of both texts of a pair, one is to go."""
    hits = {level: sum(not removed.isdisjoint(pair) for pair in pairs) for level, pairs in planted.pairs.items()}
    return Found({level: hits[level] / len(pairs) for level, pairs in planted.pairs.items()}, sum(hits.values()) / max(1, len(removed)))


def our_duplicates(begin: Callable[[], Iterable[str]], folder: Path, _: str) -> Callable[[], list[bytes]]:
    """Signatures, keys of bands, connected components."""
    from cpt.config.data import DedupConfig
    from cpt.corpus.clusters import components, edges_of
    from cpt.corpus.signatures import Signatures
    from cpt.corpus.words import words_of

    words, signatures = words_of("en"), Signatures(DedupConfig())
    keys = np.concatenate([signatures.bands(signatures.of(list(map(words.simplified, texts)))) for texts in batched(begin(), 256)])
    numbers = np.arange(len(keys), dtype=np.uint64)
    nodes, firsts = components(np.concatenate([edges_of(band, numbers) for band in keys.T], axis=1))
    return _kept_by("ours", folder, nodes[nodes != firsts].tolist())


def their_duplicates(begin: Callable[[], Iterable[str]], folder: Path, _: str) -> Callable[[], list[bytes]]:
    """datatrove's four steps, through its files."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature

    load_their_words()
    config, place = MinhashConfig(), [str(folder / f"theirs.{step}") for step in ("signatures", "buckets", "clusters")]
    signatures = MinhashDedupSignature(place[0], config, language="en")
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(begin())]
    signatures.run(iter(documents))
    for bucket in range(config.num_buckets):
        MinhashDedupBuckets(place[0], place[1], config=config).run(None, bucket, config.num_buckets)
    MinhashDedupCluster(place[1], place[2], config=config).run(None, 0, 1)
    stay = {int(document.id) for document in MinhashDedupFilter(place[2]).run(iter(documents))}
    return _kept_by("theirs", folder, [number for number in range(len(documents)) if number not in stay])


def load_their_words() -> None:
    """datatrove imports spaCy at its first text, when the clock runs."""
    from cpt.corpus.words import import_spacy

    import_spacy()
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    load_word_tokenizer("en").word_tokenize("one word")


def removed_by(side: str, folder: Path) -> set[int]:
    """What a side left in its file."""
    return set(json.loads((folder / f"{side}.json").read_text()))


def _kept_by(side: str, folder: Path, removed: list[int]) -> Callable[[], list[bytes]]:
    (folder / f"{side}.json").write_text(json.dumps(removed))
    return lambda: []


def _passages(words: Sequence[str], chance: random.Random) -> Iterator[list[str]]:
    """Pieces of the text in any order, since documents that stand together may be alike; where there is too little of it, its words in any order."""
    pieces = [words[start : start + _PIECE] for start in range(0, len(words), _PIECE)]
    left = [word for piece in chance.sample(pieces, len(pieces)) for word in piece]
    while True:
        for start in range(0, len(left) - WORDS, WORDS):
            yield left[start : start + WORDS]
        left = chance.sample(left * (1 + WORDS // len(left)), k=max(len(left), WORDS + 1))


def _pair(level: float, passages: Iterator[list[str]], words: Sequence[str], simplify: Simplify, chance: random.Random) -> tuple[str, str]:
    """The first passage of which a copy of that likeness can be made."""
    for passage in passages:
        text = " ".join(passage)
        looked_at = simplify(text)
        spoiled = round((1 - level) / (1 + level) * (len(passage) - _NGRAM + 1))
        for more in (0, 1, -1, 2, -2, 3, -3):
            copy = " ".join(_spoil(passage, spoiled + more, words, chance))
            if abs(similarity(looked_at, simplify(copy)) - level) <= CLOSE:
                return text, copy
    raise AssertionError("passages never end")


def _spoil(passage: Sequence[str], grams: int, words: Sequence[str], chance: random.Random) -> list[str]:
    """A copy in which so many 5-grams are others: five for each word replaced far from others, and one for each of the last words."""
    last = grams % _NGRAM
    places = chance.sample(range(_NGRAM - 1, len(passage) - last - _NGRAM, _NGRAM), k=grams // _NGRAM)
    copy = list(passage)
    for place in [*places, *range(len(copy) - last, len(copy))]:
        copy[place] = chance.choice(words)
    return copy
