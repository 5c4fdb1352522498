"""Words of a chunk and of a text are spaCy's own, in languages with rules of several kinds; patterns lose nothing that could match."""

from __future__ import annotations

import json
import re
import string
from functools import cache
from typing import Any

import pytest
from datatrove.utils.text import split_into_words
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt.corpus.affixes import Affixes, _alternatives
from cpt.corpus.patterns import Alphabet, alphabet, possible, pruned, without
from cpt.corpus.words import words_of
from tests.corpora import ASSETS

LANGUAGES = ["en", "de", "fr", "multilingual"]
JOINED = [
    ":)",
    ":-(",
    "(-:",
    "8-D",
    "a.m.",
    "(e.g.",
    "don't",
    "Ol'",
    "z.B.",
    "l'été",
    "aujourd'hui",
    "10km",
    "U.S.",
    "http://a.b/c",
    "x@y.org",
    "<3",
    "’s",
    "°C.",
]
CHUNK = st.lists(st.sampled_from(JOINED) | st.text(st.sampled_from("abtsKZAIé'’\"“.…,:;()[]-—/!?°²19$€%&@_=<>*+#~^"), max_size=4), max_size=4).map("".join)
PIECES = ["a", ",", r"(?<=[0-9])\+", "[:<]", r"(?:x|y)\.", "(?![a-z]),", "b*;", "(?i:s)", "é?q", r"\w-", "[^a]", "(?<=[A-Z][A-Z]):"]
LETTERS = alphabet(string.ascii_letters)


@cache
def both(language: str) -> tuple[Any, Affixes]:
    """spaCy's tokenizer, and ours for it."""
    words: Any = words_of(language)
    return words._pipeline.tokenizer, words._affixes


def check(language: str, chunk: str) -> bool:
    """Whether spaCy was asked."""
    tokenizer, affixes = both(language)
    found, beside = affixes.tokens(chunk)
    assert beside or found == tuple(token.text for token in tokenizer(chunk)), chunk
    assert not affixes.is_token(chunk) or found == (chunk,)
    return beside


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_chunk_of_the_samples_is_cut_as_spacy_does(language: str) -> None:
    lines = (line for path in sorted(ASSETS.glob("*.jsonl")) for line in path.read_text().splitlines())
    chunks = sorted({chunk for line in lines for chunk in json.loads(line)["text"].split()})
    cases = [case for case in both(language)[0].rules if not re.search(r"\s", case)]
    asked = sum(check(language, chunk) for chunk in [*chunks, *cases[::7], *(f"({case})," for case in cases[::7])])
    assert len(chunks) > 5000 and asked < len(chunks) / 50, "hardly any is left to spaCy"


@pytest.mark.parametrize("language", LANGUAGES)
@given(CHUNK)
def test_each_chunk_is_cut_as_spacy_does(language: str, chunk: str) -> None:
    for piece in chunk.split():
        check(language, piece)


@settings(max_examples=60)
@given(st.lists(CHUNK, max_size=5), st.sampled_from([" ", "  ", "\n", " \n", "\u00a0"]))
def test_what_is_beside_a_chunk_counts_as_it_does_for_spacy(chunks: list[str], between: str) -> None:
    text = between.join(chunks)
    assert words_of("en").split(text) == split_into_words(text, "en")


@pytest.mark.parametrize("text", ["( :),b", "x( :).,b", "a\n( :),b c", ":),b", "( :),b " * 3])
def test_a_smile_needs_its_neighbors(text: str) -> None:
    """In `( :),b` spaCy sees `( :` first, so no smile."""
    for _ in range(2):
        assert words_of("en").split(text) == split_into_words(text, "en")
    assert words_of("en").split("a :),b") == ["a", ":)", ",", "b"]


def test_a_special_case_of_two_chunks_is_found() -> None:
    text = "это было в н.в. и не в н.в.э. а потом"
    assert words_of("ru").split(text) == split_into_words(text, "ru")


@given(st.text(st.sampled_from("abxySB,;:+.<-"), max_size=8))
def test_a_pruned_pattern_matches_the_same(text: str) -> None:
    given = alphabet("abxySB,;:+.<-")
    found = pruned(PIECES, given)
    assert found is not None and found.pattern.count("|") < len("|".join(PIECES).split("|")) - 1, "some are left out"
    assert [match.span() for match in found.finditer(text)] == [match.span() for match in re.finditer("|".join(PIECES), text)]


def test_flags_of_a_pattern_count() -> None:
    assert possible("ſ", alphabet("s"), re.IGNORECASE) and possible(r"a\ ,", alphabet("a")) is False
    pieces = _alternatives([], re.compile("ſ|,", re.IGNORECASE).search)
    kept = pruned(pieces, alphabet("s"))
    assert kept is not None and kept.search("s"), "a flag stays with its pattern"


@pytest.mark.parametrize(
    ("pattern", "given", "expected"),
    [
        ("ab,c", LETTERS, False),
        ("ab,?c", LETTERS, True),
        ("(?:,|a)b", LETTERS, True),
        ("(?:,|;)b", LETTERS, False),
        ("a(?=,)", LETTERS, False),
        ("a(?!,)", LETTERS, True),
        ("(?<=[0-9])a", LETTERS, False),
        ("(?:,{2,3}|[,;])+a", LETTERS, False),
        ("[^a]", LETTERS, True),
        (r"[\d]", LETTERS, True),
        ("ſ", LETTERS, False),
        ("(?i)ſ", alphabet("s"), True),
        ("(?i)K", alphabet("k"), True),
        ("a(?s:,)", alphabet("a"), True),
        ("é", LETTERS, False),
        ("é", without("."), True),
        (r"a\.b", without("."), False),
        ("[b-z]", Alphabet(frozenset({97})), False),
    ],
)
def test_a_pattern_is_impossible_only_when_that_is_sure(pattern: str, given: Alphabet, expected: bool) -> None:
    assert possible(pattern, given) is expected
