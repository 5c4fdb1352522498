"""Two classifiers learn to tell listings from novels and a dictionary, by six words at a time and from a pool in which listings are hidden."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from fasttext import FastText

from cpt.config.data import Backend, ClassifierConfig, CutBy
from cpt.core.errors import MissingInput, UserError
from cpt.corpus import classifier as module
from cpt.corpus.classifier import Classifier, hold_out, load, normalize, train
from cpt.corpus.cut import Curve, curve, threshold

ASSETS = Path(__file__).parents[1] / "assets"
POOL, HIDDEN = 4000, 600
NEGATIVES, HIDDEN_NEGATIVES = 2000, 300
POSITIVES = 2000


def texts(*names: str) -> list[str]:
    return [json.loads(line)["text"] for name in names for line in (ASSETS / f"{name}.jsonl").open()]


def pieces(documents: list[str], words: int = 6) -> list[str]:
    """In random order, each once: a sentence of the listings comes many times with other numbers, and what is measured would hang on a few of them."""
    found = {}
    for document in documents:
        split = document.split()
        for start in range(0, len(split) - words + 1, words):
            piece = " ".join(split[start : start + words])
            found.setdefault(normalize(piece), piece)
    return Random(0).sample(list(found.values()), len(found))


def config(**changes: object) -> ClassifierConfig:
    return ClassifierConfig(positives=["listings"], **changes)


@dataclass
class Trial:
    """A classifier, what it learned from, and a pool whose first documents are of the domain."""

    backend: Backend
    classifier: Classifier
    positives: list[str]
    negatives: list[str]
    pool: list[str]

    @property
    def truth(self) -> npt.NDArray[np.bool_]:
        return np.arange(POOL) < HIDDEN


@pytest.fixture(scope="module", params=list(Backend))
def trial(request: pytest.FixtureRequest) -> Trial:
    domain = pieces([text.split("\n\n", 1)[1] for text in texts("listings")])
    other = pieces(texts("dictionary", "novels"))
    positives, domain = domain[:POSITIVES], domain[POSITIVES:]
    negatives = domain[:HIDDEN_NEGATIVES] + other[: NEGATIVES - HIDDEN_NEGATIVES]
    pool = domain[HIDDEN_NEGATIVES : HIDDEN_NEGATIVES + HIDDEN] + other[NEGATIVES : NEGATIVES + POOL - HIDDEN]
    return Trial(request.param, train(config(backend=request.param), positives, negatives, seed=0), positives, negatives, pool)


def measure(trial: Trial) -> tuple[Curve, npt.NDArray[np.float32]]:
    scores = trial.classifier.score(trial.pool)
    return curve(trial.classifier.score(hold_out(trial.positives, 0)[1]), scores, trial.truth), scores


def test_estimates_are_near_the_truth(trial: Trial, tmp_path: Path) -> None:
    measured, _ = measure(trial)
    assert measured.resolved
    assert measured.prevalence == pytest.approx(HIDDEN / POOL, abs=0.015)
    assert 100 < len(measured.thresholds) <= 200
    checked = [index for index, recall in enumerate(measured.recall) if recall >= 0.1]
    assert max(abs(measured.precision[index] - measured.true_precision[index]) for index in checked) < 0.1
    assert max(abs(measured.recall[index] - measured.true_recall[index]) for index in checked) < 0.1
    assert measured.precision == sorted(measured.precision)
    measured.save(tmp_path / "curve.json")
    assert Curve.load(tmp_path / "curve.json") == measured


@pytest.mark.parametrize("cut", [0.5, 0.7, 0.9])
def test_hidden_domain_documents_are_pulled_out(trial: Trial, cut: float) -> None:
    """Though a seventh of the negatives that it learned from was of the domain."""
    measured, scores = measure(trial)
    stays = scores >= threshold(config(cut=cut), measured, scores)
    assert trial.truth[stays].mean() == pytest.approx(cut, abs=0.1)
    assert stays[trial.truth].mean() > 0.9


def test_the_same_training_gives_the_same_file(trial: Trial, tmp_path: Path) -> None:
    trial.classifier.save(tmp_path / "one")
    train(config(backend=trial.backend), trial.positives, trial.negatives, seed=0).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    load(tmp_path / "one").save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()
    if trial.backend is Backend.sklearn:  # no time of day inside
        assert {entry.date_time[0] for entry in zipfile.ZipFile(tmp_path / "one").infolist()} == {1980}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two"]


def test_a_score_does_not_depend_on_the_company(trial: Trial, tmp_path: Path) -> None:
    asked = [*trial.pool[:300], "", "¡!", texts("novels")[0]]
    scores = trial.classifier.score(asked)
    assert scores.dtype == np.float32
    assert 0 <= scores.min() < 0.1 < 0.9 < scores.max() <= 1
    trial.classifier.save(tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(np.concatenate([again.score([text]) for text in asked]), scores)
    np.testing.assert_array_equal(again.score(asked[::-1])[::-1], scores)
    assert len(again.score([])) == 0


def test_the_best_documents_are_not_tied() -> None:
    """fastText's own probabilities end at 1 - 1e-5."""
    domain, other = pieces(texts("listings"), 40), pieces(texts("novels"), 40)
    scores = train(config(backend=Backend.fasttext), domain, other, seed=0).score(domain)
    assert (scores > 1 - 1e-5).mean() > 0.3
    assert (scores == scores.max()).mean() < 0.1


@pytest.mark.parametrize("kept", [1, 100, 1000, -40, -1])
def test_a_damaged_file_is_refused(trial: Trial, tmp_path: Path, kept: int) -> None:
    """fastText takes one that was cut without a word, or reads it for ever."""
    path = tmp_path / "model"
    trial.classifier.save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="is no classifier"):
        load(path)


def test_a_flipped_bit_is_refused(trial: Trial, tmp_path: Path) -> None:
    path = tmp_path / "model"
    trial.classifier.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(UserError, match="is no classifier"):
        load(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        load(tmp_path / "none")
    np.savez(tmp_path / "other.npz", weights=np.zeros(1 << 18, dtype=np.float32), intercept=np.float32(0))
    with pytest.raises(UserError, match="is no classifier of this version"):
        load(tmp_path / "other.npz")


def test_scores_of_another_normal_form_are_not_given(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial.classifier.save(tmp_path / "model")
    monkeypatch.setattr(module, "_SEAL", module._SEAL.replace(b'"normalization": 1', b'"normalization": 2'))
    with pytest.raises(UserError, match="is no classifier of this version"):
        load(tmp_path / "model")


def test_files_are_those_of_their_libraries(trial: Trial, tmp_path: Path) -> None:
    """The seal does not get in the way."""
    path = tmp_path / "model.npz"
    trial.classifier.save(path)
    if trial.backend is Backend.sklearn:
        assert np.load(path, allow_pickle=False)["weights"].shape == (1 << 18,)
    else:
        assert sorted(FastText.load_model(str(path)).labels) == ["__SIDE__domain", "__SIDE__other"]


@pytest.mark.parametrize("backend", list(Backend))
def test_what_only_the_template_tells_is_not_learned(backend: Backend) -> None:
    """The same kind of text on both sides, one with the labels and numbers of a serialized record: a perfect separation that is worth nothing."""
    entries = pieces(texts("dictionary"), words=12)
    records = [f"Title: {text[:20]}\nSection: {text[20:]}\n- **Item number:** {number}\ncolor: red; size: 3" for number, text in enumerate(entries[:500])]
    plain = [f"{text[:20]}\n{text[20:]}\n{number}\nred 7" for number, text in enumerate(entries[500:1000])]
    with pytest.raises(UserError, match="no better than chance"):
        train(config(backend=backend), records, plain, seed=0)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Title: Red Kettle 2.5 l\nSection:kitchen", "red kettle 0 0 l section kitchen"),
        ("Item number: 17\n\n  Price per unit : 3", "0 0"),
        ('- **Brand:** Iskra\n"color": "olive"', "iskra olive"),
        ("color: red; size: 3; it said: no", "red 0 no"),
        ("At 12:30 see http://x.org: good", "at 0 0 see http x org good"),
        ("Title: kettle n 1: a pot\nkettle n 1: a pot", "a pot a pot"),
        ("標題：紅色 kettle", "紅 色 kettle"),
        ("a </s> b __SIDE__domain\0c\u2028d", "a s b __side__domain c d"),
        ("x" * 20_000, "x" * 10_000),
        ("", ""),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("hostile", "normal"),
    [
        ("a: " * 3500, "a"),
        ("a-" * 5000, "a " * 4999 + "a"),
        ("a " * 5000, "a " * 4999 + "a"),
        ("_" * 10_000, "_" * 10_000),
        (";" * 10_000, ""),
        ("word word word\n" * 700, "word " * 1999 + "word"),
    ],
)
def test_labels_cost_no_more_than_their_length(hostile: str, normal: str) -> None:
    """A pattern that goes back would need minutes."""
    assert normalize(hostile) == normal


def test_signs_of_fasttext_are_words(trial: Trial) -> None:
    """Its end of line would hide the rest of a text, its labels would be given away."""
    listing, prose = texts("listings")[0], pieces(texts("novels"), 40)[0]
    hidden, plain, told = trial.classifier.score([f"{prose} </s> {listing}", prose, f"{prose} __SIDE__domain __label__domain"])
    assert hidden > plain + 0.1
    assert told == pytest.approx(plain, abs=0.2)


@pytest.mark.parametrize("backend", list(Backend))
def test_sides_that_do_not_differ_are_refused(backend: Backend) -> None:
    other = pieces(texts("dictionary"))
    with pytest.raises(UserError, match="no better than chance"):
        train(config(backend=backend), other[:1000], other[1000:2000], seed=0)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(UserError, match=r"negatives: have \d+ documents to measure on"):
        train(config(), pieces(texts("listings"))[:500], pieces(texts("novels"))[:20], seed=0)


def test_sides_of_different_size_are_balanced() -> None:
    """Else the score of what is rare among the examples is always near 0."""
    domain, other = pieces(texts("listings"), 3), pieces(texts("novels"), 3)
    for backend in Backend:
        found = train(config(backend=backend), domain[:150], other[:10_000], seed=0)
        assert np.median(found.score(domain[1000:1500])) > 0.5 > np.median(found.score(other[11_000:11_500]))


def test_fasttext_tries_again_after_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    domain, other = pieces(texts("listings"))[:500], pieces(texts("novels"))[:500]
    monkeypatch.setattr(module, "_RATES", (1e30, 0.5))
    train(config(backend=Backend.fasttext), domain, other, seed=0)
    monkeypatch.setattr(module, "_RATES", (1e30,))
    with pytest.raises(UserError, match="it met NaN"):
        train(config(backend=Backend.fasttext), domain, other, seed=0)


def test_the_part_held_out_depends_on_what_texts_say() -> None:
    entries = texts("dictionary")
    learned, measured = hold_out([*entries, *entries], seed=1)
    assert not set(learned) & set(measured)
    assert len(measured) / len(entries) / 2 == pytest.approx(0.2, abs=0.03)


def normal_scores(prevalence: float, apart: float, pool: int = 10_000) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(positives, pool, truth)."""
    random = np.random.default_rng(0)
    truth = np.arange(pool) < prevalence * pool
    return random.normal(apart, 1, 5000), random.normal(0, 1, pool) + apart * truth, truth


def test_a_domain_too_rare_to_measure_is_said_to_be() -> None:
    """5 documents of 10,000: whatever 20 documents stay, most of them look like the rare domain's."""
    positives, pool, truth = normal_scores(prevalence=0.0005, apart=3)
    measured = curve(positives, pool, truth)
    believed = next(true for precision, true in zip(measured.precision, measured.true_precision, strict=True) if precision >= 0.9)
    assert believed < 0.3
    with pytest.raises(UserError, match="too few domain documents"):
        threshold(config(cut=0.9), measured, pool)
    assert (pool >= threshold(config(cut_by=CutBy.quantile, cut=0.999), measured, pool)).sum() == 10


def test_scores_that_never_are_pure_are_said_to_be() -> None:
    positives, pool, _ = normal_scores(prevalence=0.01, apart=1)
    with pytest.raises(UserError, match="hardly tell"):
        threshold(config(cut=0.9), curve(positives, pool), pool)


def test_scores_upside_down_measure_nothing() -> None:
    positives, pool, _ = normal_scores(prevalence=0.1, apart=3)
    measured = curve(positives - 30, pool)
    assert (measured.resolved, measured.true_precision, measured.true_recall) == (False, [], [])


def test_a_curve_of_a_handful_is_refused() -> None:
    with pytest.raises(UserError, match="shares say nothing"):
        curve(np.ones(5), np.ones(5000))


@pytest.mark.parametrize(("prevalence", "apart"), [(0.02, 3), (0.1, 3), (0.3, 2), (0.6, 4)])
def test_precision_of_normal_scores(prevalence: float, apart: float) -> None:
    positives, pool, truth = normal_scores(prevalence, apart)
    measured = curve(positives, pool, truth)
    assert measured.prevalence == pytest.approx(prevalence, rel=0.15)
    for cut in (0.7, 0.9):
        stays = pool >= threshold(config(cut=cut), measured, pool)
        assert truth[stays].mean() == pytest.approx(cut, abs=0.1)


def test_a_pool_without_domain_documents_has_no_recall() -> None:
    positives, pool, _ = normal_scores(0.0, 3)
    measured = curve(positives, pool, np.zeros(len(pool), dtype=bool))
    assert (measured.true_recall, set(measured.true_precision), measured.resolved) == ([], {0.0}, False)


def test_quantile_and_score() -> None:
    positives, pool, _ = normal_scores(0.1, 3, pool=1000)
    measured = curve(positives, pool)
    for quantile, stay in ((0.0, 1000), (0.9, 100), (0.95, 50), (1.0, 1)):
        assert (pool >= threshold(config(cut_by=CutBy.quantile, cut=quantile), measured, pool)).sum() == stay
    assert threshold(config(cut_by=CutBy.score, cut=0.25), measured, pool) == 0.25


def test_a_quantile_among_ties_keeps_fewer_not_all() -> None:
    """The score below which 0.9 of this pool lies is 0, and everything scores at least that."""
    pool = np.array([0.0] * 950 + [0.5] * 40 + [1.0] * 10)
    measured = curve(np.ones(50), pool)
    assert threshold(config(cut_by=CutBy.quantile, cut=0.9), measured, pool) == 0.5
    with pytest.raises(UserError, match="10 of 1000 documents share the best score"):
        threshold(config(cut_by=CutBy.quantile, cut=0.999), measured, pool)
