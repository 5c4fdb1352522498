"""What a classifier's scores are worth, and where to cut: recall, precision and prevalence from a pool in which nobody knows the domain documents.

A pool is a mixture: of all its documents the share `kept(t)` scores t or more, of its domain documents the share `recall(t)`, which held-out positives
tell. With pi for the domain's share of the pool, precision(t) = pi recall(t) / kept(t). As precision is at most 1, pi <= kept(t) / recall(t) at each t;
where some cut keeps nothing but domain documents the least of these ratios is pi (Blanchard, Lee & Scott 2010, "Semi-Supervised Novelty Detection",
JMLR 11; Elkan & Noto 2008). Ratios are compared by their upper confidence bounds, as in Blanchard's theorem: the least of plain ones is the noise of
the highest cuts, and far too low. It rests on two things: held-out positives look like the pool's domain documents, and the best cut is pure. The first
cannot be seen in the scores. The second can, in part: the ratio is then level where the cut rises; see `Curve.resolved`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cpt.config.data import ClassifierConfig, CutBy
from cpt.core.artifacts import Artifact
from cpt.core.errors import Problem, UserError

Scores = npt.NDArray[np.floating[Any]]

_WHERE = "corpus.classifiers.<name>"
_LEAST_RECALL = 0.1
_LEAST_KEPT = 20
"""Pool documents."""
_ERRORS = 5
"""Standard errors of a ratio that are added to it before ratios are compared. Chosen by trial: with fewer, the least ratio is often one of a few
documents at the top and a tenth or more too low, and a cut at 0.9 loses half the domain documents; with 7, it takes in too much of what is not."""
_FURTHER = 4
_LEVEL = 0.65
"""With so many times the fewest documents that count, the ratio must not be above the chosen one / this. Tried on mixtures of two normal scores, 1.5 to 6
standard deviations apart, in pools of 1000 to 100,000 with a prevalence of 0.0005 to 0.6. Where it lets most draws pass, `cut=0.9` kept 55 % domain
documents or more; without it, down to 3 %. In pools with 100 domain documents, 3 or more deviations apart, 92 % on average, and 2 % of draws refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve(Artifact):
    """Of cuts from the lowest to the highest, one entry of each list for each."""

    thresholds: list[float]
    """Scores of the pool, about 200, dense at its best end: a document stays when it scores the threshold or more."""
    kept: list[float]
    """Share of the pool that stays."""
    recall: list[float]
    """Share of held-out positives that stays."""
    precision: list[float]
    """Estimated share of domain documents in what stays; never falls as the cut rises."""
    true_precision: list[float] = field(default_factory=list)
    """The same, of the pool's own truth; empty where nobody knows it."""
    true_recall: list[float] = field(default_factory=list)
    """Share of the pool's domain documents that stays; empty where nobody knows it or the pool has none."""
    prevalence: float
    """Estimated share of domain documents in the pool."""
    resolved: bool
    """Whether the pool has enough domain documents (about 60), and the classifier is good enough, to tell; else `prevalence` and `precision` say little."""
    auc: float
    """How often a held-out positive scores above a document of the pool: too low by half the prevalence, as the pool has domain documents itself."""
    positives: int
    pool: int
    """Documents measured."""


def area(positives: Scores, others: Scores) -> float:
    """AUC: the chance that one of `positives` scores above one of `others`; ties count half."""
    ranked = np.sort(others)
    below = np.searchsorted(ranked, positives, "left").astype(np.float64) + np.searchsorted(ranked, positives, "right")
    return float(below.mean() / (2 * len(ranked)))


def curve(positive_scores: Scores, pool_scores: Scores, truth: npt.NDArray[np.bool_] | None = None) -> Curve:
    """Scores of positives that the classifier has not learned from, and of a pool that it has not learned from either: what it was told is a
    negative scores lower than its like, and hidden domain documents would seem fewer. `truth`, of each pool document, is only ever reported.

    Raises `UserError` when there are too few to tell anything."""
    if len(pool_scores) < _LEAST_KEPT or len(positive_scores) < _LEAST_KEPT:
        raise _too_few(len(positive_scores), len(pool_scores))
    thresholds = _thresholds(pool_scores)
    kept, recall = _at_or_above(pool_scores, thresholds), _at_or_above(positive_scores, thresholds)
    prevalence, precision, resolved = _precision(kept, recall, len(pool_scores), len(positive_scores))
    true_precision, true_recall = _truth(pool_scores, thresholds, kept, truth)
    return Curve(
        thresholds=thresholds.tolist(),
        kept=kept.tolist(),
        recall=recall.tolist(),
        precision=precision.tolist(),
        true_precision=true_precision,
        true_recall=true_recall,
        prevalence=prevalence,
        resolved=resolved,
        auc=area(positive_scores, pool_scores),
        positives=len(positive_scores),
        pool=len(pool_scores),
    )


def threshold(config: ClassifierConfig, measured: Curve, pool_scores: Scores) -> float:
    """The score from which a document stays. Raises `UserError` when no score does what the config asks for."""
    if config.cut_by is CutBy.score:
        return config.cut
    return _best(pool_scores, config.cut) if config.cut_by is CutBy.quantile else _precise(measured, config.cut)


def _thresholds(pool: Scores) -> npt.NDArray[np.float64]:
    """At quantiles by equal steps, and by equal ratios so that the rare end is resolved."""
    shares = np.concatenate([np.geomspace(1 / len(pool), 1, 140), np.linspace(0.02, 1, 60)])
    ranked = np.sort(pool)[::-1]
    return np.unique(ranked[np.ceil(shares * len(pool) - 1e-9).astype(np.int64) - 1]).astype(np.float64)


def _at_or_above(scores: Scores, thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 - np.searchsorted(np.sort(scores).astype(np.float64), thresholds, "left") / len(scores)


def _precision(kept: npt.NDArray[np.float64], recall: npt.NDArray[np.float64], pool: int, positives: int) -> tuple[float, npt.NDArray[np.float64], bool]:
    """(prevalence, precision at each cut, whether they are resolved)."""
    counts = np.flatnonzero((recall >= _LEAST_RECALL) & (kept * pool >= _LEAST_KEPT - 0.5))
    if not len(counts):  # no cut keeps enough of both: positives score below the pool
        return 1.0, np.ones_like(kept), False
    k, r = kept[counts], recall[counts]
    purest = counts[(k / r * (1 + _ERRORS * np.sqrt((1 - k) / (k * pool) + (1 - r) / (r * positives)))).argmin()]
    prevalence = float(min(1, kept[purest] / recall[purest]))
    fewest = kept[counts[-1]]
    further = max(np.flatnonzero(kept >= _FURTHER * fewest), default=0)
    resolved = bool(kept[purest] >= _FURTHER * fewest or prevalence * recall[further] / kept[further] >= _LEVEL)
    precision = np.minimum(1, prevalence * recall / kept)
    # A cut above the purest is no less pure, whatever a handful of documents says. Below, one lucky cut must not hide a worse one above it.
    precision[purest:] = 1
    return prevalence, np.minimum.accumulate(precision[::-1])[::-1], resolved


def _truth(
    pool: Scores, thresholds: npt.NDArray[np.float64], kept: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_] | None
) -> tuple[list[float], list[float]]:
    """(precision, recall)."""
    if truth is None:
        return [], []
    if not truth.any():
        return [0.0] * len(thresholds), []
    recall = _at_or_above(pool[truth], thresholds)
    return (recall * truth.mean() / kept).tolist(), recall.tolist()


def _precise(measured: Curve, wanted: float) -> float:
    if not measured.resolved:
        raise UserError(
            Problem(
                where=f"{_WHERE}.cut_by",
                what=f"is precision, which {measured.pool} documents of the pool and {measured.positives} held-out positives cannot tell",
                why=f"the pool seems to have too few domain documents, {measured.prevalence:.2%}, for its size; or scores hardly tell them from others, AUC "
                f"{measured.auc:.3f}; or the positives are of another kind than they",
                fix=f"{_WHERE}.cut_by=quantile with {_WHERE}.cut=<share to leave out>, a larger pool, or other positives",
            )
        )
    return next(score for score, precision in zip(measured.thresholds, measured.precision, strict=True) if precision >= wanted)


def _best(pool: Scores, quantile: float) -> float:
    """The lowest score at or above which no more than 1 - quantile of the pool lies, up to one document."""
    if not len(pool):
        raise UserError(Problem(where=f"{_WHERE}.cut_by", what="is quantile", why="the pool has no documents", fix="sources with documents"))
    scores, counts = np.unique(pool, return_counts=True)
    kept = counts[::-1].cumsum()[::-1]
    fits = np.flatnonzero(kept <= max(1, np.ceil((1 - quantile) * len(pool) - 1e-9)))
    if not len(fits):
        why = f"{kept[-1]} of {len(pool)} documents share the best score, {scores[-1]:.6g}: no cut keeps fewer of them"
        raise UserError(Problem(where=f"{_WHERE}.cut", what=f"is the quantile {quantile}", why=why, fix=f"{_WHERE}.cut={1 - kept[-1] / len(pool):.4g} or less"))
    return float(scores[fits[0]])


def _too_few(positives: int, pool: int) -> UserError:
    return UserError(
        Problem(
            where=f"{_WHERE}.positives",
            what=f"leave {positives} held-out positives and {pool} documents of the pool to measure on",
            why=f"of fewer than {_LEAST_KEPT}, shares say nothing",
            fix="more documents of either side",
        )
    )
