"""`learn` and `score`: a classifier from documents that passed the filters, how it does on those it has not seen, and a score of every document."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cpt.config.data import ClassifierConfig
from cpt.core.artifacts import Artifact
from cpt.corpus.classifier import Classifier, load, train
from cpt.corpus.cut import Curve, curve, threshold
from cpt.corpus.documents import Document, draw, drawn
from cpt.corpus.stages.records import CountRecord, LearnRecord, SelectRecord, describe
from cpt.corpus.stages.select import Selected
from cpt.corpus.tables import open_column, read_documents, save_column

FOLDS = (0, 1)
_EXCERPT = 300
_AROUND = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged(Artifact):
    """A document and its score."""

    id: str
    score: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AtCut:
    """How a classifier does at its cut, as in `Curve`."""

    cut: float
    kept: float
    recall: float
    precision: float
    true_recall: float | None
    true_precision: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """What a classifier learns from and is measured on."""

    positives: Sequence[Selected]
    negatives: Sequence[Selected]
    pool: Sequence[Selected]
    """What it will judge."""


def learn(section: ClassifierConfig, seed: int, sides: Sides, record: Path) -> None:
    """Two models, curve and the pool's scores, beside the record. Raises `UserError` when they do no better than chance.

    Each model learns from the documents of one fold and judges those of the other, in the pool as in what it is measured by: a document of the pool that
    was learned as a negative scores lower than its like, and domain text hidden there would never be found.
    """
    begun = time.process_time()
    record.unlink(missing_ok=True)
    positives, negatives = sample(sides.positives, section.documents, seed, "positives"), sample(sides.negatives, section.documents, seed, "negatives")
    pool = sample(sides.pool, 2 * section.documents, seed, "pool")
    models = [train(section, _of_fold(positives, seed, fold), _of_fold(negatives, seed, fold), seed) for fold in FOLDS]
    for file, model in zip(_models(record), models, strict=True):
        model.save(file)
    scores = judge(models, pool, seed)
    truth = np.array([document.truth for document in pool], dtype=bool) if pool and all(document.truth is not None for document in pool) else None
    save_column(record.with_name("pool.npy"), scores)
    curve(judge(models, positives, seed), scores, truth).save(record.with_name("curve.json"))
    files = [*_models(record), record.with_name("pool.npy"), record.with_name("curve.json")]
    seconds = time.process_time() - begun
    LearnRecord(files=describe(files), seconds=seconds, positives=len(positives), negatives=len(negatives)).save(record)


def score(model: Path, selected: Selected, seed: int, out: Path) -> None:
    """[n] float32 in `out`, for each document of a shard; `model`: the record of `learn`."""
    begun, record = time.process_time(), out.with_suffix(".json")
    record.unlink(missing_ok=True)
    models = [load(file) for file in _models(model)]
    parts = [judge(models, batch, seed) for batch in read_documents(selected.documents, ("id", "text", "family"))]
    scores = np.concatenate([np.empty(0, dtype=np.float32), *parts])
    save_column(out, scores)
    CountRecord(files=describe([out]), seconds=time.process_time() - begun, count=len(scores)).save(record)


def judge(models: Sequence[Classifier], documents: Sequence[Document], seed: int) -> npt.NDArray[np.float32]:
    """[n] scores, each by the model that has not learned from the document's fold."""
    found, folds = np.empty(len(documents), dtype=np.float32), np.array([_fold(document, seed) for document in documents], dtype=np.int64)
    for fold in FOLDS:
        places = np.flatnonzero(folds == fold)
        found[places] = models[1 - fold].score([documents[int(place)].text for place in places])
    return found


def threshold_of(section: ClassifierConfig, model: Path) -> float:
    """The lowest score that stays. Raises `UserError` when no cut does what is asked."""
    return threshold(section, read_curve(model), open_column(model.with_name("pool.npy")))


def read_curve(model: Path) -> Curve:
    """Of a classifier, by the record of its `learn`."""
    return Curve.load(model.with_name("curve.json"))


def how_it_does(section: ClassifierConfig, model: Path) -> AtCut:
    """By the point of its curve that is nearest above the cut."""
    found, cut = read_curve(model), threshold_of(section, model)
    place = min(int(np.searchsorted(np.array(found.thresholds, dtype=np.float32), np.float32(cut))), len(found.thresholds) - 1)
    return AtCut(
        cut=cut,
        kept=found.kept[place],
        recall=found.recall[place],
        precision=found.precision[place],
        true_recall=found.true_recall[place] if found.true_recall else None,
        true_precision=found.true_precision[place] if found.true_precision else None,
    )


def sample(tables: Sequence[Selected], most: int, seed: int, what: str) -> list[Document]:
    """About `most` documents, each as likely as any other of its shard; of very many shards only some, in drawn order, four times as large as is needed."""
    # by the source's name: a folder's has a key that changes when a file is touched
    order = sorted(tables, key=lambda one: draw(seed, what, one.folder.name.rpartition("-")[0], one.stem))
    chosen, kept = list[Selected](), 0
    for one in order:
        if kept >= 4 * most:
            break
        chosen.append(one)
        kept += SelectRecord.load(one.record).kept
    share = most / max(1, kept)
    return [document for one in chosen for batch in read_documents(one.documents) for document in batch if drawn(seed, document.id, share, what)]


def read_judged(tables: Sequence[tuple[Selected, Path]], cut: float) -> list[Judged]:
    """Documents with the scores right above and right below the cut."""
    scores = [np.asarray(open_column(file)) for _, file in tables]
    everything = np.concatenate([np.empty(0, dtype=np.float32), *scores])
    order = np.argsort(everything, kind="stable")
    place = int(np.searchsorted(everything[order], np.float32(cut)))
    return sorted(_documents(tables, scores, order[max(0, place - _AROUND) : place + _AROUND]), key=lambda one: -one.score)


def _documents(tables: Sequence[tuple[Selected, Path]], scores: Sequence[npt.NDArray[np.float32]], places: npt.NDArray[np.int64]) -> Iterator[Judged]:
    start, wanted = 0, set(places.tolist())
    for (selected, _), mine in zip(tables, scores, strict=True):
        if any(start <= place < start + len(mine) for place in wanted):
            row = 0
            for batch in read_documents(selected.documents, ("id", "text")):
                for index, document in enumerate(batch, row):
                    if start + index in wanted:
                        yield Judged(id=document.id, score=float(mine[index]), text=document.text[:_EXCERPT])
                row += len(batch)
        start += len(mine)


def _models(record: Path) -> list[Path]:
    return [record.with_name(f"model-{fold}") for fold in FOLDS]


def _fold(document: Document, seed: int) -> int:
    """Relatives are in one."""
    return int(drawn(seed, document.family or document.id, 0.5, "fold"))


def _of_fold(documents: Sequence[Document], seed: int, fold: int) -> list[str]:
    return [document.text for document in documents if _fold(document, seed) == fold]
