"""Why a document was left out, in words, with the thresholds that were asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from cpt.config.data import CorpusConfig
from cpt.config.filters import FilterConfig

GROUPS = {
    "language": "other language",
    "unreadable": "unreadable",
    "exact_duplicate": "exact duplicate",
    "near_duplicate": "near-duplicate",
    "off_domain": "off domain",
    "contaminated": "contaminated",
}
"""Reasons that stand for themselves; all others are rules of a filter."""
FILTERED = "filters"


def grouped(dropped: Mapping[str, int]) -> dict[str, int]:
    """Group of reasons -> documents."""
    found: dict[str, int] = {}
    for reason, number in dropped.items():
        group = GROUPS.get(reason, FILTERED)
        found[group] = found.get(group, 0) + number
    return found


def explain(reason: str, corpus: CorpusConfig, source: str) -> str:
    """One sentence; empty for a reason that nobody has put in words, or of a source that the config does not have."""
    if source not in corpus.sources or corpus.sources[source].filters not in corpus.filters:
        return ""
    rules = corpus.filters[corpus.sources[source].filters]
    if found := re.fullmatch(r"(top|duplicated)_(\d+)_(?:n_)?grams?", reason):
        return _ngrams(found[1], int(found[2]), rules)
    if reason in _OF_CORPUS:
        return _OF_CORPUS[reason](corpus, source)
    return _OF_RULES[reason](rules) if reason in _OF_RULES else ""


def percent(share: float) -> str:
    """`0.125` -> `12.5%`."""
    return f"{100 * share:.3g}%"


def _ngrams(kind: str, words: int, rules: FilterConfig) -> str:
    most = rules.repetition.max_top_ngram_characters if kind == "top" else rules.repetition.max_repeated_ngram_characters
    what = f"The most frequent row of {words} words has" if kind == "top" else f"Rows of {words} words that came before have"
    return f"{what} more than {percent(most[words])} of its characters." if words in most else f"{what} too many of its characters."


def _off_domain(corpus: CorpusConfig, source: str) -> str:
    name = corpus.sources[source].classifier
    return f"Classifier {name} scores it below its cut." if name else "A classifier scores it below its cut."


def _near(corpus: CorpusConfig, source: str) -> str:
    dedup = corpus.dedup
    alike = (1 / dedup.bands) ** (1 / dedup.rows)
    return f"Shares about {percent(round(alike, 2))} or more of its rows of {dedup.ngram} words with a document that stays, or with one that does in turn."


def _contaminated(corpus: CorpusConfig, source: str) -> str:
    asked = corpus.decontaminate
    return f"Holds {percent(asked.min_share)} or more of the rows of {asked.ngram} words of a benchmark item or a held-out document."


_OF_CORPUS: dict[str, Callable[[CorpusConfig, str], str]] = {
    "exact_duplicate": lambda corpus, source: "Equal, up to case and white space, to a document that stays.",
    "near_duplicate": _near,
    "off_domain": _off_domain,
    "contaminated": _contaminated,
    "unreadable": lambda corpus, source: "The record cannot be read; it is put aside in quarantine.jsonl.",
}

_OF_RULES: dict[str, Callable[[FilterConfig], str]] = {
    "empty": lambda rules: "Nothing but white space.",
    "language": lambda rules: f"Its score in the source's language, by fastText's lid.176, is {rules.language.min_score:g} or less.",
    "dup_para_frac": lambda rules: f"More than {percent(rules.repetition.max_duplicate_paragraphs)} of its paragraphs came before.",
    "dup_line_frac": lambda rules: f"More than {percent(rules.repetition.max_duplicate_lines)} of its lines came before.",
    "dup_para_char_frac": lambda rules: f"Paragraphs that came before have more than {percent(rules.repetition.max_duplicate_paragraph_characters)} of it.",
    "dup_line_char_frac": lambda rules: f"Lines that came before have more than {percent(rules.repetition.max_duplicate_line_characters)} of it.",
    "gopher_short_doc": lambda rules: f"Fewer than {rules.quality.min_words:,} words.",
    "gopher_long_doc": lambda rules: f"More than {rules.quality.max_words:,} words.",
    "gopher_below_avg_threshold": lambda rules: f"Words have fewer than {rules.quality.min_mean_word_length:g} characters on average.",
    "gopher_above_avg_threshold": lambda rules: f"Words have more than {rules.quality.max_mean_word_length:g} characters on average.",
    "gopher_too_many_hashes": lambda rules: f"More than {rules.quality.max_symbols_per_word:g} hash signs a word.",
    "gopher_too_many_ellipsis": lambda rules: f"More than {rules.quality.max_symbols_per_word:g} ellipses a word.",
    "gopher_too_many_bullets": lambda rules: f"More than {percent(rules.quality.max_bullet_lines)} of its lines begin with a bullet.",
    "gopher_too_many_end_ellipsis": lambda rules: f"More than {percent(rules.quality.max_ellipsis_lines)} of its lines end in an ellipsis.",
    "gopher_below_alpha_threshold": lambda rules: f"Fewer than {percent(rules.quality.min_alphabetic_words)} of its words have a letter.",
    "gopher_enough_stop_words": lambda rules: f"Fewer than {rules.quality.min_stop_words} of its language's stop words.",
    "lorem_ipsum": lambda rules: "Has “lorem ipsum”.",
    "curly_bracket": lambda rules: "Has a curly bracket: code, rather than text.",
    "too_few_sentences": lambda rules: f"Fewer than {rules.c4.min_sentences} sentences in lines of {rules.c4.min_words_in_line} words or more.",
    "line_punct_ratio": lambda rules: f"Fewer than {percent(rules.fineweb.min_lines_ending_in_punctuation)} of its lines end in punctuation.",
    "short_line_ratio": lambda rules: f"More than {percent(rules.fineweb.max_short_lines)} of its lines have {rules.fineweb.short_line} characters or fewer.",
    "char_dup_ratio": lambda rules: f"Lines that came before have more than {percent(rules.fineweb.max_duplicate_line_characters)} of its characters.",
    "list_ratio": lambda rules: f"More than {rules.fineweb.max_newlines_per_word:g} line breaks a word: a list.",
}
