"""What a classifier's cut costs, for whoever looks for a better one: curves, a table of cuts, and documents around the one that was made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cpt.config.data import CorpusConfig
from cpt.core.manifest import ClassifierRecord
from cpt.corpus.cut import Curve
from cpt.corpus.inspection import Inspection
from cpt.corpus.stages.learn import Judged
from cpt.report import card_pictures
from cpt.report.card_documents import BRIEF, short, wrapped
from cpt.report.card_reasons import percent
from cpt.report.page import EMPTY, Html, folded, join, paragraph, picture, section, table, text

_CUTS = (0.5, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
"""Shares of the pool to keep among which a reader looks for a cut."""


def classifier(corpus: CorpusConfig, inspection: Inspection, record: ClassifierRecord) -> Html:
    """One classifier's section."""
    curve = inspection.curves.get(record.name)
    judged = [name for name, source in corpus.sources.items() if source.classifier == record.name]
    bound = "" if record.resolved else " at most"
    lead = (
        f"Learned from {record.positives:,} domain and {record.negatives:,} other documents ({record.backend}); judges {', '.join(judged) or 'nothing'}. "
        f"AUC {record.auc:.3f}. Of the pool{bound} {percent(record.prevalence)} is of the domain by estimate."
    )
    if not record.resolved:
        lead += " The pool has too few domain documents to tell more: precision is an upper bound."
    if curve is None:
        return section(f"Classifier {record.name}", lead=lead)
    caption = f"Estimated from {curve.positives:,} held-out domain documents and {curve.pool:,} of the pool; the cut is marked."
    return section(
        f"Classifier {record.name}",
        picture(card_pictures.cut(curve, record), caption),
        _cuts(curve, record),
        *(_at_the_cut(name, inspection.at_the_cut.get(name, []), record.cut) for name in judged),
        lead=lead,
    )


def _cuts(curve: Curve, record: ClassifierRecord) -> Html:
    """Shares of the pool to choose from, and the cut that was made."""
    places = {min(range(len(curve.kept)), key=lambda place: abs(curve.kept[place] - share)) for share in _CUTS}
    found = int(np.searchsorted(np.array(curve.thresholds, dtype=np.float32), np.float32(record.cut)))  # scores are compared in 32 bits
    chosen = min(found, len(curve.kept) - 1)
    order = sorted(places | {chosen}, key=lambda place: curve.thresholds[place])
    bound = "" if curve.resolved else "≤ "
    rows = [
        (
            f"{card_pictures.score(record.cut)} (this cut)" if place == chosen else card_pictures.score(curve.thresholds[place]),
            f"{1 - curve.kept[place]:.4f}",
            f"{100 * curve.kept[place]:.2f}%",
            f"{100 * curve.recall[place]:.1f}%",
            f"{bound}{100 * curve.precision[place]:.1f}%",
            *(f"{100 * truth[place]:.1f}%" for truth in (curve.true_recall, curve.true_precision) if truth),
        )
        for place in order
    ]
    truths = [name for name, truth in (("true recall", curve.true_recall), ("true precision", curve.true_precision)) if truth]
    columns = ("score from", "as quantile", "kept of the pool", "recall", "precision", *truths)
    where = f"corpus.classifiers.{text(record.name)}"
    how = Html(f"For another cut: <code>{where}.cut_by=score {where}.cut=…</code>, or <code>quantile</code>. Nothing is read or learned again for it.")
    return join([table(columns, rows, marked=(order.index(chosen),)), paragraph(how)])


def _at_the_cut(source: str, found: Sequence[Judged], cut: float) -> Html:
    """Right above and right below the cut of one source."""
    if not found:
        return EMPTY
    stay = [np.float32(one.score) >= np.float32(cut) for one in found]
    rows = [
        (card_pictures.score(one.score), "stays" if stays else "goes", wrapped(one.id), wrapped(short(one.text, BRIEF)))
        for one, stays in zip(found, stay, strict=True)
    ]
    shown = table(("score", "", "document", "begins"), rows, words=(1, 2, 3), wide=True)
    return folded(f"{source}: documents right above and right below the cut", shown)
