"""Filters: a document is kept (None) or rejected with a name. Profiles are per source, since web rules delete product listings.

`prose` follows Gopher (Rae et al. 2021, arXiv 2112.11446, table A1) with its published thresholds; words are split at white space,
which keeps punctuation in them. Its stop-word rule runs in the languages that have a list here and is skipped in others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

from cpt.config.data import FilterProfile

LISTING_MIN_WORDS = 20
PROSE_WORDS = (50, 100_000)  # Gopher: quality, number of words
MEAN_WORD_LENGTH = (3.0, 10.0)  # Gopher: quality
MAX_SYMBOLS_PER_WORD = 0.1  # Gopher: quality, `#` and ellipses
MAX_BULLET_LINES = 0.9  # Gopher: quality
MAX_ELLIPSIS_LINES = 0.3  # Gopher: quality
MIN_ALPHABETIC_WORDS = 0.8  # Gopher: quality
MIN_STOP_WORDS = 2  # Gopher: quality
MAX_REPEATED_LINE_CHARACTERS = 0.2  # Gopher: repetition, characters in duplicate lines
MAX_TOP_BIGRAM_CHARACTERS = 0.2  # Gopher: repetition, characters in the most frequent 2-gram

STOP_WORDS = {
    "en": frozenset(["the", "be", "to", "of", "and", "that", "have", "with"]),  # Gopher's own
    "de": frozenset(["der", "die", "das", "und", "zu", "mit", "ist", "nicht"]),
    "fr": frozenset(["le", "la", "les", "de", "et", "que", "est", "pour"]),
}
_BULLET = re.compile(r"\s*[-*•‣◦]")


def reject(profile: FilterProfile, text: str, language: str) -> str | None:
    """Name of the first rule that rejects `text`, None when it stays."""
    if not text.strip():
        return "empty"
    match profile:
        case FilterProfile.listing:
            return next(_listing(text), None)
        case FilterProfile.prose:
            return next(_prose(text, language), None)
        case FilterProfile.none:
            return None


def _listing(text: str) -> Iterator[str]:
    """Short, without prose rules: minimum words 50, stop words and sentence counts would remove most listings."""
    if len(text.split()) < LISTING_MIN_WORDS:
        yield "too_few_words"
    if _repeated_line_characters(text) > MAX_REPEATED_LINE_CHARACTERS:
        yield "repeated_lines"


def _prose(text: str, language: str) -> Iterator[str]:
    words = text.split()
    if len(words) < PROSE_WORDS[0]:
        yield "too_few_words"
    if len(words) > PROSE_WORDS[1]:
        yield "too_many_words"
    if not MEAN_WORD_LENGTH[0] <= sum(map(len, words)) / len(words) <= MEAN_WORD_LENGTH[1]:
        yield "mean_word_length"
    if (text.count("#") + text.count("...") + text.count("…")) / len(words) > MAX_SYMBOLS_PER_WORD:
        yield "symbols"
    yield from _lines(text)
    if _share(any(c.isalpha() for c in word) for word in words) < MIN_ALPHABETIC_WORDS:
        yield "few_alphabetic_words"
    if language in STOP_WORDS and len(STOP_WORDS[language].intersection(word.lower() for word in words)) < MIN_STOP_WORDS:
        yield "few_stop_words"
    if _top_bigram_characters(words) > MAX_TOP_BIGRAM_CHARACTERS:
        yield "repeated_bigram"


def _lines(text: str) -> Iterator[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    if _share(_BULLET.match(line) is not None for line in lines) > MAX_BULLET_LINES:
        yield "bullet_lines"
    if _share(line.rstrip().endswith(("...", "…")) for line in lines) > MAX_ELLIPSIS_LINES:
        yield "ellipsis_lines"
    if _repeated_line_characters(text) > MAX_REPEATED_LINE_CHARACTERS:
        yield "repeated_lines"


def _share(marks: Iterable[bool]) -> float:
    values = list(marks)
    return sum(values) / len(values)


def _repeated_line_characters(text: str) -> float:
    """Share of characters in lines that occurred before."""
    seen: set[str] = set()
    total = repeated = 0
    for line in filter(None, map(str.strip, text.splitlines())):
        total += len(line)
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return repeated / total if total else 0.0


def _top_bigram_characters(words: list[str]) -> float:
    """Share of characters covered by the most frequent pair of neighboring words."""
    pair, times = Counter(pairwise(words)).most_common(1)[0]
    return times * sum(map(len, pair)) / sum(map(len, words)) if times > 1 else 0.0
