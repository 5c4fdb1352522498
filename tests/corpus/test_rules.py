"""Rules reject by name; and on real text of several kinds each decision, word, sentence and signature is datatrove's own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt.config.data import DedupConfig
from cpt.config.filters import FilterConfig, profiles
from cpt.corpus.rules import Filter, _count, _counts
from cpt.corpus.signatures import Signatures
from cpt.corpus.words import Memory, Words, words_of
from tests.corpora import ASSETS

ENGLISH = " ".join(f"the word{number} of a story that goes on" for number in range(12))
LISTING = "Title: kettle, cobalt\nSection: kitchen\n\n" + " ".join(f"feature{number}" for number in range(20))
LINES = [f"the line number {number} of a long text with words" for number in range(8)]
UGLY = st.text(st.sampled_from("ab Z.?!\n\t -•…#{}[]():;0１७,ÄéΣß '\"#，。\u00a0\u2003\u0301\U0001f600"), max_size=400)


def texts(name: str) -> list[str]:
    return [json.loads(line)["text"] for line in (ASSETS / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def english() -> Words:
    return words_of("en")


def judged(profile: str, text: str, language: str = "en", repetition: bool = True) -> str:
    config = profiles()[profile]
    config.repetition.enabled &= repetition
    return Filter(config, language, words_of(language)).judge(text)[0]


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("empty", " \n"),
        ("gopher_short_doc", "the end of it"),
        ("gopher_below_avg_threshold", " ".join(f"of a{number % 7} b" for number in range(60))),
        ("gopher_above_avg_threshold", " ".join([f"incomprehensibilities{number}" for number in range(60)])),
        ("gopher_too_many_hashes", ENGLISH + "".join(f" #{number}story" for number in range(20))),
        ("gopher_too_many_bullets", "\n".join(f"- {line}" for line in LINES)),
        ("gopher_too_many_end_ellipsis", "\n".join(f"{line} {number}..." if number % 2 else line for number, line in enumerate(LINES))),
        ("dup_line_frac", "\n".join([*LINES, *LINES[:4]])),
        ("dup_para_frac", "\n\n".join([*LINES, *LINES[:4]])),
        ("gopher_below_alpha_threshold", ENGLISH + "".join(f" {number}" for number in range(12345, 12385))),
        ("gopher_enough_stop_words", " ".join(f"word{number} story{number}" for number in range(40))),
        ("top_2_gram", "the story of a tree " + " ".join(f"quick fox{number} the brown dog and that the brown dog" for number in range(10))),
    ],
)
def test_prose_rejections_have_names(reason: str, text: str) -> None:
    assert judged("prose", text, repetition=not reason.startswith("gopher")) == reason


def test_listings_stay_without_sentences_and_stop_words() -> None:
    assert judged("listing", LISTING) == ""
    assert judged("listing", "Title: kettle") == "gopher_short_doc"
    assert judged("listing", "\n".join([*LISTING.split("\n"), *LISTING.split("\n")])) != ""
    assert judged("none", "x") == ""


def test_stop_words_are_those_of_the_language() -> None:
    german = " ".join(f"das Wort{number} und die Sache{number}, die nicht endet" for number in range(12))
    assert judged("prose", german, "de", repetition=False) == ""
    assert judged("prose", german, "en", repetition=False) == "gopher_enough_stop_words"
    assert judged("prose", " ".join(f"cavallo{number} verde{number}" for number in range(40)), "it") == "", "no rule without words"


def theirs(profile: FilterConfig, language: str, stop_words: list[str]) -> Callable[[str], tuple[str, str]]:
    """datatrove's own filters, one after the other, with a profile's thresholds."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    quality = profile.quality
    gopher = {"min_doc_words": quality.min_words, "max_non_alpha_words_ratio": quality.min_alphabetic_words, "min_stop_words": quality.min_stop_words}
    grams = tuple(profile.repetition.max_top_ngram_characters.items())
    steps: list[tuple[bool, Any]] = [
        (profile.repetition.enabled, GopherRepetitionFilter(language=language, top_n_grams=grams)),
        (quality.enabled, GopherQualityFilter(language=language, stop_words=stop_words, **gopher)),
        (profile.c4.enabled, C4QualityFilter(language=language, filter_no_terminal_punct=profile.c4.lines_end_in_punctuation)),
        (profile.fineweb.enabled, FineWebQualityFilter(language=language)),
    ]

    def judge(text: str) -> tuple[str, str]:
        if not text.strip():
            return "empty", text  # datatrove's filters fail on it, or divide by zero
        document = Document(text=text, id="0")
        for enabled, step in steps:
            if enabled and (found := step.filter(document)) is not True:
                return found[1], document.text
        return "", document.text

    return judge


@pytest.mark.parametrize("profile", ["web", "listing", "c4 as published"])
@pytest.mark.parametrize(("source", "language"), [("novels", "en"), ("dictionary", "en"), ("listings", "en"), ("german", "de"), ("french", "fr")])
def test_each_decision_is_datatroves(profile: str, source: str, language: str) -> None:
    config = profiles()["web" if profile == "c4 as published" else profile]
    if profile == "c4 as published":
        config.c4.lines_end_in_punctuation, config.quality.enabled, config.repetition.enabled = True, False, False
    ours, their = Filter(config, language, words_of(language)), theirs(config, language, config.quality.stop_words[language])
    reasons: Counter[str] = Counter()
    for text in texts(source)[:: 20 if source == "listings" else 10]:
        for variant in (text, text + "\n" + text, "\n".join(text.split(". ")), text[: len(text) // 3]):
            found = ours.judge(variant)
            assert found == their(variant)
            reasons[found[0]] += 1
    assert len(reasons) > 1, "a test of one decision says little"


@given(UGLY)
def test_each_decision_is_datatroves_on_ugly_text(text: str) -> None:
    for name in ("web", "listing"):
        config = profiles()[name]
        config.quality.min_words = 3
        assert Filter(config, "en", words_of("en")).judge(text) == theirs(config, "en", config.quality.stop_words["en"])(text)


@given(UGLY)
def test_words_and_sentences_are_datatroves(text: str) -> None:
    from datatrove.utils.text import simplify_text, split_into_sentences, split_into_words

    words = words_of("en")
    assert words.split(text) == split_into_words(text, "en")
    assert words.simplified(text) == split_into_words(simplify_text(text), "en")
    for line in filter(None, map(str.strip, text.splitlines())):
        assert words.sentences(line) == len(split_into_sentences(line, "en"))


@pytest.mark.parametrize("line", ["Why?\u00a0:", "one dog.  ' ! two", "a dog. : two", "a dog.\t: ; two. ", " a dog? ", "", "( :),b dog?  ;"])
def test_white_space_may_begin_a_sentence(line: str) -> None:
    from datatrove.utils.text import split_into_sentences

    assert words_of("en").sentences(line) == len(split_into_sentences(line, "en"))


@pytest.mark.parametrize("source", ["novels", "dictionary", "listings"])
def test_signatures_are_datatroves_bit_for_bit(english: Words, source: str, tmp_path: Path) -> None:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    their, ours = MinhashDedupSignature(str(tmp_path), MinhashConfig(), language="en"), Signatures(DedupConfig())
    chosen = [text for text in texts(source)[::10] if their.get_shingles(text).size]
    found = ours.of([english.simplified(text) for text in chosen])
    np.testing.assert_array_equal(found, [np.concatenate(their.get_signature(their.get_shingles(text))) for text in chosen])
    bands = ours.bands(found)
    for band in range(14):
        rows = [row.tobytes() for row in found[:, 8 * band : 8 * band + 8]]
        assert len(set(rows)) == len(set(bands[:, band].tolist())), "equal rows and no others share a number"


def test_words_are_counted_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["the", "tree", ",", "7", "...", "Äpfel", "1a", "!"]
    assert _counts(words) == (4, 5, 15)
    monkeypatch.setattr("cpt.corpus.rules._MOST", 3)
    monkeypatch.setattr("cpt.corpus.rules._FIELD", 2)
    monkeypatch.setattr("cpt.corpus.rules._counted", Memory(_count))
    assert _counts(words) == (4, 5, 15)


def test_memory_forgets_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpt.corpus.words._REMEMBERED", 8)
    words, text = words_of.__wrapped__("en"), texts("novels")[0]
    found = words.split(text), words.split(text)
    assert len(words._words) <= 8  # type: ignore[attr-defined]
    monkeypatch.undo()
    assert found == (words_of("en").split(text),) * 2
