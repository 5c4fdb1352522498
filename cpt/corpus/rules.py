"""Which rule rejects a text: Gopher's, C4's and FineWeb's, with the decisions of datatrove's filters (0.10.1) on every document.

Each rule set is a function of (text, words, its thresholds) that gives the name of the first rule that is broken, or nothing. Equal decisions
hold by tests against datatrove itself. What makes them fast: words come from a memory, what is counted of a word is counted once, and n-grams
are looked at one by one only when some occur twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, chain

from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

from cpt.config.filters import C4Rules, FilterConfig, FinewebRules, QualityRules, RepetitionRules
from cpt.corpus.words import Memory, Words

_PARAGRAPH = re.compile(r"\n{2,}")
_LINE = re.compile(r"\n+")
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_CLOSING = (".", "?", "!", '"', "'")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_FIELD = 20
"""Bits of a count in `_counted`: three of them fit in the number that `sum` adds fast."""
_MOST = (1 << _FIELD) - 1
"""Words that are counted at once."""


class Filter:
    """One profile, in one language."""

    def __init__(self, config: FilterConfig, language: str, words: Words) -> None:
        self._config, self._language, self._words = config, language, words

    def judge(self, text: str) -> tuple[str, str]:
        """(why it goes, empty when it stays; the text without the lines that C4 removes)."""
        if not text.strip():
            return "empty", text
        config = self._config
        if config.repetition.enabled or config.quality.enabled:
            words = self._words.split(text)
            if config.repetition.enabled and (why := repetition(text, words, config.repetition)):
                return why, text
            if config.quality.enabled and (why := quality(text, words, self._language, config.quality)):
                return why, text
        if config.c4.enabled:
            why, text = c4(text, self._words.sentences, config.c4)
            if why:
                return why, text
        return (fineweb(text, self._words.split, config.fineweb) if config.fineweb.enabled else ""), text


def repetition(text: str, words: Sequence[str], rules: RepetitionRules) -> str:
    """Gopher's repetition rules."""
    for kind, parts, most, most_characters in (
        ("para", _paragraphs(text.strip()), rules.max_duplicate_paragraphs, rules.max_duplicate_paragraph_characters),
        ("line", _lines(text), rules.max_duplicate_lines, rules.max_duplicate_line_characters),
    ):
        duplicates, characters = _duplicates(parts)
        if duplicates / len(parts) > most:
            return f"dup_{kind}_frac"
        if characters / len(text) > most_characters:
            return f"dup_{kind}_char_frac"
    return next(chain(_frequent(text, words, rules.max_top_ngram_characters), _repeated(text, words, rules)), "")


def quality(text: str, words: Sequence[str], language: str, rules: QualityRules) -> str:
    """Gopher's quality rules. Those about stop words are left out in a language that has none named."""
    alphabetic, spelled, letters = _counts(words)
    if spelled < rules.min_words:
        return "gopher_short_doc"
    if rules.max_words and spelled > rules.max_words:
        return "gopher_long_doc"
    if spelled and letters / spelled < rules.min_mean_word_length:
        return "gopher_below_avg_threshold"
    if spelled and letters / spelled > rules.max_mean_word_length:
        return "gopher_above_avg_threshold"
    if text.count("#") / len(words) > rules.max_symbols_per_word:
        return "gopher_too_many_hashes"
    if (text.count("...") + text.count("…")) / len(words) > rules.max_symbols_per_word:
        return "gopher_too_many_ellipsis"
    lines = text.splitlines()
    if sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines) > rules.max_bullet_lines:
        return "gopher_too_many_bullets"
    if sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines) > rules.max_ellipsis_lines:
        return "gopher_too_many_end_ellipsis"
    if alphabetic / len(words) < rules.min_alphabetic_words:
        return "gopher_below_alpha_threshold"
    if language in rules.stop_words and len(set(rules.stop_words[language]).intersection(words)) < rules.min_stop_words:
        return "gopher_enough_stop_words"
    return ""


def c4(text: str, sentences: Callable[[str], int], rules: C4Rules) -> tuple[str, str]:
    """(why it goes, the lines that stay). Sentences are counted until there are enough."""
    found, kept = 0, []
    for line in map(str.strip, text.splitlines()):
        words = line.split()
        if len(line) > rules.max_word_length and any(len(word) > rules.max_word_length for word in words):
            continue
        line = _CITATION.sub("", line)
        if rules.lines_end_in_punctuation and (not line.endswith(_CLOSING) or line.endswith("...")):
            continue
        if len(words) < rules.min_words_in_line:
            continue
        lower = line.lower()
        if "lorem ipsum" in lower:
            return "lorem_ipsum", text
        if "javascript" in lower:
            continue
        if "{" in line:
            return "curly_bracket", text
        if any(policy in lower for policy in _POLICIES):
            continue
        if found < rules.min_sentences:
            found += sentences(line)
        kept.append(line)
    if found < rules.min_sentences:
        return "too_few_sentences", text
    return "", "\n".join(kept).strip()


def fineweb(text: str, split: Callable[[str], Sequence[str]], rules: FinewebRules) -> str:
    """FineWeb's rules."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return "empty"
    if sum(line[-1] in TERMINAL_PUNCTUATION for line in lines) / len(lines) < rules.min_lines_ending_in_punctuation:
        return "line_punct_ratio"
    if sum(len(line) <= rules.short_line for line in lines) / len(lines) > rules.max_short_lines:
        return "short_line_ratio"
    newlines = text.count("\n")
    if _duplicates(lines)[1] / (len(text) - newlines) > rules.max_duplicate_line_characters:
        return "char_dup_ratio"
    if newlines and newlines / len(split(text)) > rules.max_newlines_per_word:
        return "list_ratio"
    return ""


def _duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """How many of them occurred before, and their characters."""
    if len(set(parts)) == len(parts):
        return 0, 0
    seen, again = set[str](), list[str]()
    for part in parts:
        if part in seen:
            again.append(part)
        else:
            seen.add(part)
    return len(again), sum(map(len, again))


def _paragraphs(text: str) -> list[str]:
    return _PARAGRAPH.split(text) if "\n\n\n" in text else text.split("\n\n")


def _lines(text: str) -> list[str]:
    return _LINE.split(text) if "\n\n\n" in text else text.replace("\n\n", "\n").split("\n")


def _frequent(text: str, words: Sequence[str], most: Mapping[int, float]) -> Iterator[str]:
    """n-grams of which the most frequent one has too many characters, spaces included, times how often it occurs; of equals, the one that came first."""
    longest, known, times = max(map(len, words), default=0), 0, len(words)
    for n, share in most.items():
        # What is longer occurs no more often than what it holds.
        if len(words) < n or (n > known and times * (n * longest + n - 1) / len(text) <= share):
            continue
        if times == 1 and n > known:
            gram = tuple(words[:n])
        else:
            counts = Counter(zip(*(words[first:] for first in range(n)), strict=False))
            known, times = n, max(counts.values())
            gram = next(gram for gram, count in counts.items() if count == times)
        if (sum(map(len, gram)) + n - 1) * times / len(text) > share:
            yield f"top_{n}_gram"


def _repeated(text: str, words: Sequence[str], rules: RepetitionRules) -> Iterator[str]:
    """n-grams are compared as their letters in a row, as datatrove does."""
    row, ends = "".join(words), list(accumulate(map(len, words), initial=0))
    if not rules.max_repeated_ngram_characters or not _any_repeated(row, ends, min(rules.max_repeated_ngram_characters)):
        return
    for n, most in rules.max_repeated_ngram_characters.items():
        grams = _grams(row, ends, n)
        again = len(grams) - len(set(grams))
        if again and again * max(map(len, grams)) / len(text) > most and _repeated_characters(grams, n) / len(text) > most:
            yield f"duplicated_{n}_n_grams"


def _any_repeated(row: str, ends: Sequence[int], n: int) -> bool:
    """Whether an n-gram or a longer one may occur twice: of two that are equal, one begins with the other's first n words.

    In order, whatever begins with a string comes right behind it.
    """
    grams = sorted(_grams(row, ends, n))
    return any(map(str.startswith, grams[1:], grams))


def _grams(row: str, ends: Sequence[int], n: int) -> list[str]:
    return [row[start:stop] for start, stop in zip(ends, ends[n:], strict=False)]


def _repeated_characters(grams: Sequence[str], n: int) -> int:
    """Characters of n-grams that occurred before; what one covers is not counted again."""
    seen, characters, place = set[str](), 0, 0
    while place < len(grams):
        gram = grams[place]
        if gram in seen:
            characters += len(gram)
            place += n
        else:
            seen.add(gram)
            place += 1
    return characters


def _counts(words: Sequence[str]) -> tuple[int, int, int]:
    """How many have a letter, how many have more than punctuation, and the characters of these."""
    found = [0, 0, 0]
    for first in range(0, len(words), _MOST):
        counted = sum(map(_counted.__getitem__, words[first : first + _MOST] if len(words) > _MOST else words))
        for field, value in enumerate((counted & _MOST, counted >> _FIELD & _MOST, counted >> 2 * _FIELD)):
            found[field] += value
    return found[0], found[1], found[2]


def _count(word: str) -> int:
    """The three in one number: sums of it are sums of the three."""
    spelled = (word.isascii() and word.isalpha()) or not PUNCTUATION_SET.issuperset(word)
    return any(map(str.isalpha, word)) | spelled << _FIELD | (len(word) if spelled else 0) << 2 * _FIELD


_counted: Memory[int] = Memory(_count)
