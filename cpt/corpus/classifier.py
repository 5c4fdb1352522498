"""Tells domain text from other text: learned from examples of both, deterministic, and safe to load.

The other side may hold hidden domain documents, as a pool that is yet to be judged does: scores then still rank (Elkan & Noto 2008), and `cut` tells what
they are worth. A score is P(domain) as if both sides were equally common in what was learned.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cpt.config.data import Backend, ClassifierConfig
from cpt.core.artifacts import write_bytes
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.corpus.cut import area
from cpt.corpus.documents import draw

_WHERE = "corpus.classifiers.<name>"
_SETTINGS = {"normalization": 1, "features": 1 << 18, "ngrams": 2}
"""What scores depend on beside the weights; `normalization` is counted up when `normalize` changes."""
_SEAL = b"\ncpt classifier " + json.dumps(_SETTINGS, sort_keys=True).encode() + b" "
_MEASURED = 5
"""One document of so many is kept from learning."""
_FEWEST = 10
"""Held-out documents of each side."""
_SEEN = 400_000
"""Documents that learning goes through, a small set several times."""
_LOOKED_AT = 10_000
"""Characters of a document, so that a book costs what a page does."""

_LABEL = re.compile(r'(?:^|;)(?:[^\w\n]{0,8}+[^\W\d][\w-]{0,30}+(?: [\w-]{1,30}+){0,2}+["*]{0,2}+ ?(?::(?!\w)|：))++', re.MULTILINE)
_NUMBER = re.compile(r"\d+")
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+")


class Classifier(Protocol):
    """Of one of the backends."""

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """P(domain), 0 to 1, of each text; the same alone and among others."""

    def save(self, path: Path) -> None:
        """One file, whole or not at all; the same bytes for the same training."""


def normalize(text: str) -> str:
    """What both backends learn from and judge: words in lower case with single spaces, numbers as 0, ideographs one by one; no punctuation.

    Serialized records begin their lines with the template's labels (`Title: `, `color: red; size: 3`), text of the same domain found in the wild does
    not. A classifier would learn the labels, score all records perfectly and find nothing; so what stands before a colon there is left out, and so are
    punctuation and line breaks. That also makes fastText's own signs (its end of line, its labels) words as all others.
    """
    plain = _NUMBER.sub("0", _LABEL.sub(" ", text[:_LOOKED_AT]).lower())
    return " ".join(_WORD.findall(plain))


def hold_out(texts: Iterable[str], seed: int) -> tuple[list[str], list[str]]:
    """(learned from, measured on): about one in five is measured; equal texts are on one side."""
    sides: tuple[list[str], list[str]] = ([], [])
    for text in texts:
        sides[draw(seed, "measured", text) % _MEASURED == 0].append(text)
    return sides


def train(config: ClassifierConfig, positives: Sequence[str], negatives: Sequence[str], seed: int) -> Classifier:
    """Learns from the first part of `hold_out` of each side. Raises `UserError` when it does no better on the second part than chance would."""
    (domain, measured_domain), (other, measured_other) = hold_out(positives, seed), hold_out(negatives, seed)
    for side, measured in (("positives", measured_domain), ("negatives", measured_other)):
        if len(measured) < _FEWEST:
            raise _too_few(side, len(measured))
    learn = {Backend.sklearn: _learn_linear, Backend.fasttext: _learn_fasttext}[config.backend]
    classifier = learn([normalize(text) for text in domain], [normalize(text) for text in other], draw(seed, "learn") % (1 << 31))
    _require_better_than_chance(classifier.score(measured_domain), classifier.score(measured_other))
    return classifier


def load(path: Path) -> Classifier:
    """Raises `MissingInput`, or `UserError` for anything that `Classifier.save` of this version has not written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingInput(path=path, why="a trained classifier is kept in this file", fix="run the stage that trains it") from None
    body, seal, digest = data.rpartition(_SEAL)
    if not seal or sha256(body).hexdigest().encode() != digest:
        what, why = "is no classifier of this version", "its seal is missing or does not fit its content; fastText reads a cut file without a word, or for ever"
        raise UserError(Problem(where=str(path), what=what, why=why, fix="remove it and train again"))
    return Linear.parse(body) if body.startswith(b"PK") else FastText.parse(body)


class Linear:
    """Logistic loss on hashed 1- and 2-grams of words: scikit-learn's hashing, one weight a feature."""

    def __init__(self, weights: npt.NDArray[np.float32], intercept: np.float32) -> None:
        self._weights, self._intercept, self._features = weights, intercept, _hashing()

    @classmethod
    def parse(cls, body: bytes) -> Linear:
        """What `save` has written, without the seal."""
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            return cls(arrays["weights"], arrays["intercept"][()])

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """As `Classifier`."""
        if not texts:
            return np.zeros(0, dtype=np.float32)
        return _probability(self._features.transform(map(normalize, texts)) @ self._weights + self._intercept)

    def save(self, path: Path) -> None:
        """As `Classifier`: an npz, uncompressed as compressed bytes depend on the machine's zlib."""
        buffer = io.BytesIO()
        np.savez(buffer, weights=self._weights, intercept=self._intercept)
        _write_sealed(path, buffer.getvalue())


class FastText:
    """fastText's mean of word and 2-gram vectors. Its binding is used directly: `predict` of its Python class breaks with numpy 2."""

    def __init__(self, model: Any) -> None:
        self._model = model
        labels, _ = model.getLabels("strict")
        rows = np.array(model.getOutputMatrix(), dtype=np.float64)
        # The difference of the two logits. The probabilities that fastText gives are capped at 1 - 1e-5, which would tie all good documents.
        self._direction = rows[labels.index(_DOMAIN)] - rows[labels.index(_OTHER)]
        self._vector = _binding().Vector(len(self._direction))

    @classmethod
    def parse(cls, body: bytes) -> FastText:
        """What `save` has written, without the seal."""
        model = _binding().fasttext()
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.bin").write_bytes(body)
            model.loadModel(f"{folder}/model.bin")
        return cls(model)

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """As `Classifier`."""
        return _probability(np.array([self._margin(text) for text in texts], dtype=np.float64))

    def save(self, path: Path) -> None:
        """As `Classifier`: a model that fastText itself can read; it does not look at the seal behind."""
        with tempfile.TemporaryDirectory() as folder:
            self._model.saveModel(f"{folder}/model.bin")
            body = (Path(folder) / "model.bin").read_bytes()
        _write_sealed(path, body)

    def _margin(self, text: str) -> float:
        self._model.getSentenceVector(self._vector, normalize(text) + "\n")
        return float(np.array(self._vector, dtype=np.float64) @ self._direction)


_PREFIX = "__SIDE__"
"""In capitals, so that no normalized text holds a label."""
_DOMAIN, _OTHER = f"{_PREFIX}domain", f"{_PREFIX}other"
_RATES = (0.5, 0.5, 0.25, 0.1)
"""Learning rates of fastText, tried in turn while it says that it has met NaN."""


def _learn_linear(domain: Sequence[str], other: Sequence[str], seed: int) -> Classifier:
    """By stochastic gradient descent, which is one thread of plain loops: solvers on BLAS give other bits with other numbers of threads."""
    from sklearn.linear_model import SGDClassifier  # late: takes a second

    labels = np.repeat([1, 0], [len(domain), len(other)])
    model = SGDClassifier(
        loss="log_loss", alpha=1e-5, max_iter=_epochs(len(labels)), tol=None, class_weight="balanced", random_state=seed
    )  # fmt: skip
    model.fit(_hashing().transform([*domain, *other]), labels)
    return Linear(model.coef_[0].astype(np.float32), np.float32(model.intercept_[0]))


def _learn_fasttext(domain: Sequence[str], other: Sequence[str], seed: int) -> Classifier:
    """One thread, as more of them race for the weights; few dimensions, as two classes need no more."""
    from fasttext import train_supervised

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples.txt"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(_mixed(domain, other, seed))
        epochs = _epochs(2 * max(len(domain), len(other)))
        for rate in _RATES:
            try:
                model = train_supervised(
                    str(path), lr=rate, epoch=epochs, dim=16, wordNgrams=2, bucket=200_000, thread=1, seed=seed, label=_PREFIX, verbose=0
                )  # fmt: skip
                return FastText(model.f)
            except RuntimeError as error:
                if "NaN" not in str(error):
                    raise
    raise UserError(
        Problem(where=f"{_WHERE}.backend", what="is fasttext", why=f"it met NaN at each learning rate of {_RATES}", fix=f"{_WHERE}.backend=sklearn")
    )


def _mixed(domain: Sequence[str], other: Sequence[str], seed: int) -> Iterator[str]:
    """Lines for fastText, which learns in the order of the file and knows no class weights: sides take turns, and the smaller one repeats."""
    random = np.random.Generator(np.random.PCG64(seed))
    orders = [random.permutation(len(side)).tolist() for side in (domain, other)]
    for first, second in islice(zip(cycle(orders[0]), cycle(orders[1]), strict=False), max(map(len, orders))):
        yield f"{_DOMAIN} {domain[first]}\n"
        yield f"{_OTHER} {other[second]}\n"


def _write_sealed(path: Path, body: bytes) -> None:
    write_bytes(path, body + _SEAL + sha256(body).hexdigest().encode())


def _hashing() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer  # late: takes a second

    split: Callable[[str], list[str]] = str.split
    return HashingVectorizer(
        n_features=_SETTINGS["features"], ngram_range=(1, _SETTINGS["ngrams"]), tokenizer=split, token_pattern=None, lowercase=False, dtype=np.float32
    )  # fmt: skip


def _binding() -> Any:
    from fasttext import FastText as wrapper

    return wrapper.fasttext


def _epochs(documents: int) -> int:
    return min(25, max(5, _SEEN // documents))


def _probability(margins: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    from scipy.special import expit

    return np.asarray(expit(margins), dtype=np.float32)


def _require_better_than_chance(domain: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> None:
    """By three standard deviations of the AUC of scores that know nothing (Mann & Whitney 1947)."""
    found, m, n = area(domain, other), len(domain), len(other)
    needed = 0.5 + 3 * ((m + n + 1) / (12 * m * n)) ** 0.5
    if not found > needed:
        raise UserError(
            Problem(
                where=_WHERE,
                what=f"ranks {m} held-out positives and {n} negatives no better than chance: AUC {found:.3f}, and {needed:.3f} would be better",
                why="the two sides differ in nothing that it can see, labels of a template aside, or are too few",
                fix=f"{_WHERE}.positives=[<sources of domain text>], and negatives that are not of the domain",
            )
        )


def _too_few(side: str, measured: int) -> UserError:
    return UserError(
        Problem(
            where=f"{_WHERE}.{side}",
            what=f"have {measured} documents to measure on, one of {_MEASURED}",
            why=f"what a classifier is worth takes {_FEWEST} at least",
            fix=f"{_WHERE}.{side}=[<sources with more documents>]",
        )
    )
