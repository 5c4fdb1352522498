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
from cpt.corpus.classifier import load, train
from cpt.corpus.cut import Curve, curve, threshold
from cpt.corpus.documents import Document, draw, drawn
from cpt.corpus.stages.records import CountRecord, LearnRecord, SelectRecord, describe
from cpt.corpus.stages.select import Selected
from cpt.corpus.tables import open_column, read_documents, save_column

MEASURED = 0.2
"""Share of families that no classifier learns from."""
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
    """Model, curve and the pool's scores, beside the record. Raises `UserError` when it does no better than chance."""
    begun = time.process_time()
    record.unlink(missing_ok=True)
    positives, known = split(sample(sides.positives, section.documents, seed, "positives"), seed)
    negatives, _ = split(sample(sides.negatives, section.documents, seed, "negatives"), seed)
    _, pool = split(sample(sides.pool, 2 * section.documents, seed, "pool"), seed)
    model = train(section, _texts(positives), _texts(negatives), seed)
    scores = model.score(_texts(pool))
    truth = np.array([document.truth for document in pool], dtype=bool) if pool and all(document.truth is not None for document in pool) else None
    model.save(_model(record))
    save_column(record.with_name("pool.npy"), scores)
    curve(model.score(_texts(known)), scores, truth).save(record.with_name("curve.json"))
    files = [_model(record), record.with_name("pool.npy"), record.with_name("curve.json")]
    seconds = time.process_time() - begun
    LearnRecord(files=describe(files), seconds=seconds, positives=len(positives), negatives=len(negatives)).save(record)


def score(model: Path, selected: Selected, out: Path) -> None:
    """[n] float32 in `out`, for each document of a shard; `model`: the record of `learn`."""
    begun, record = time.process_time(), out.with_suffix(".json")
    record.unlink(missing_ok=True)
    classifier = load(_model(model))
    parts = [classifier.score(_texts(batch)) for batch in read_documents(selected.documents, ("text",))]
    scores = np.concatenate([np.empty(0, dtype=np.float32), *parts])
    save_column(out, scores)
    CountRecord(files=describe([out]), seconds=time.process_time() - begun, count=len(scores)).save(record)


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
    order = sorted(tables, key=lambda one: draw(seed, what, one.folder.name, one.stem))
    chosen, kept = list[Selected](), 0
    for one in order:
        if kept >= 4 * most:
            break
        chosen.append(one)
        kept += SelectRecord.load(one.record).kept
    share = most / max(1, kept)
    return [document for one in chosen for batch in read_documents(one.documents) for document in batch if drawn(seed, document.id, share, what)]


def split(documents: Sequence[Document], seed: int) -> tuple[list[Document], list[Document]]:
    """(to learn from, to measure on), by family."""
    measured = [drawn(seed, document.family or document.id, MEASURED, "measure") for document in documents]
    return tuple([document for document, mine in zip(documents, measured, strict=True) if mine is side] for side in (False, True))  # type: ignore[return-value]


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


def _model(record: Path) -> Path:
    return record.with_name("model")


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.text for document in documents]
