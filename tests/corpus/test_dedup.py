from __future__ import annotations

from random import Random

import pytest

from cpt.config.data import DedupConfig
from cpt.core.errors import UserError
from cpt.corpus.dedup import ExactDuplicates, NearDuplicates, check_canary


def texts(number: int, words: int = 120) -> list[list[str]]:
    random = Random(0)
    return [[f"w{random.randrange(5000)}" for _ in range(words)] for _ in range(number)]


def one_word_changed(words: list[str]) -> list[str]:
    return [*words[:40], "sparrow", *words[41:]]


def test_exact_duplicates_up_to_case_and_space() -> None:
    exact = ExactDuplicates()
    assert [exact.is_new(text) for text in ("A b", "a  B\n", "a b c")] == [True, False, True]


def test_every_planted_near_duplicate_is_found_and_nothing_else() -> None:
    originals = texts(200)
    near = NearDuplicates(DedupConfig())
    assert near.are_new(originals) == [True] * 200
    assert near.are_new([one_word_changed(text) for text in originals]) == [False] * 200


def test_batches_do_not_matter() -> None:
    stream = [text for original in texts(30) for text in (original, one_word_changed(original))]
    at_once = NearDuplicates(DedupConfig()).are_new(stream)
    one_by_one = NearDuplicates(DedupConfig())
    assert [one_by_one.are_new([text])[0] for text in stream] == at_once == [True, False] * 30


def test_what_is_shorter_than_an_ngram_has_no_near_duplicates() -> None:
    near = NearDuplicates(DedupConfig())
    assert near.are_new([["red", "kettle"], [], ["red", "kettle"], list("abcde"), list("abcde")]) == [True, True, True, True, False]


def test_canary_passes_with_the_defaults() -> None:
    check_canary(DedupConfig())


def test_canary_refuses_settings_that_find_nothing() -> None:
    with pytest.raises(UserError) as caught:
        check_canary(DedupConfig(bands=1, rows=200))
    assert caught.value.problems[0].where == "corpus.dedup"


def test_canary_refuses_a_library_that_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NearDuplicates, "are_new", lambda self, texts: [True] * len(texts))
    with pytest.raises(UserError, match="miss a planted near-duplicate"):
        check_canary(DedupConfig())
