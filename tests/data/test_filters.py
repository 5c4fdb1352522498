from __future__ import annotations

import pytest

from cpt.config.data import FilterProfile
from cpt.data.filters import reject

ENGLISH = " ".join(f"the word{number} of a story that goes on" for number in range(12))
GERMAN = " ".join(f"das Wort{number} und die Sache, die nicht endet" for number in range(12))
LISTING = "Title: kettle, cobalt\nSection: kitchen\n\n" + " ".join(f"feature{number}" for number in range(20))
LINES = [f"the line number {number} of a long text with words" for number in range(8)]


def prose(text: str, language: str = "en") -> str | None:
    return reject(FilterProfile.prose, text, language)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("empty", " \n"),
        ("too_few_words", "the end of it"),
        ("too_many_words", "the man of it " * 25_001),
        ("mean_word_length", " ".join(["of", "a"] * 40)),
        ("mean_word_length", " ".join([f"incomprehensibilities{number}" for number in range(60)])),
        ("symbols", ENGLISH + " # story" * 20),
        ("bullet_lines", "\n".join(f"- {line}" for line in LINES)),
        ("ellipsis_lines", "\n".join(f"{line} ..." if number % 2 else line for number, line in enumerate(LINES))),
        ("repeated_lines", "\n".join([*LINES, *LINES[:4]])),
        ("few_alphabetic_words", ENGLISH + " 12345" * 40),
        ("few_stop_words", " ".join(f"word{number} story" for number in range(40))),
        ("repeated_bigram", "the story of a tree " + " ".join(f"quick fox{number} the brown dog and that the brown dog" for number in range(10))),
    ],
)
def test_prose_rejections_have_names(reason: str, text: str) -> None:
    assert prose(text) == reason


@pytest.mark.parametrize(("reason", "text"), [("empty", ""), ("too_few_words", "Title: kettle"), ("repeated_lines", LISTING + f"\n{LISTING}")])
def test_listing_rejections_have_names(reason: str, text: str) -> None:
    assert reject(FilterProfile.listing, text, "en") == reason


def test_what_is_kept() -> None:
    assert prose(ENGLISH) is None
    assert reject(FilterProfile.listing, LISTING, "en") is None
    assert reject(FilterProfile.none, "x", "en") is None


def test_prose_rules_would_remove_a_listing() -> None:
    assert prose(LISTING) == "too_few_words"


def test_stop_words_are_the_languages_own() -> None:
    assert prose(GERMAN, "de") is None
    assert prose(GERMAN, "en") == "few_stop_words"
    assert prose(GERMAN, "pt") is None  # no list, no rule
