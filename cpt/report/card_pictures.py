"""Pictures of a prepared corpus: what became of documents, tokens, lengths, clusters of duplicates, and what a classifier's cut costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from cpt.core import units
from cpt.core.manifest import ClassifierRecord, SourceRecord
from cpt.corpus.cut import Curve
from cpt.report.canvas import AGAIN, DOMAIN, GENERAL, GOOD, INK, LOST, SOFT, Canvas, source_colors
from cpt.report.card_reasons import FILTERED, grouped

FATES = {
    "trained on": GOOD,
    "held out": "#9ad0b5",
    FILTERED: "#7d8896",
    "other language": "#b4bcc6",
    "unreadable": INK,
    "exact duplicate": AGAIN,
    "near-duplicate": "#f4dca6",
    "off domain": "#a79bd8",
    "contaminated": LOST,
}
_DARK = (GOOD, INK, LOST, "#7d8896")
_NARROW = 6.0
"""Percent of a bar that has no room for a number."""
_PANELS = 4
_TITLE = 20
"""Characters that a panel has room for."""
_FEW = 20
"""Sizes of clusters that have a bar each."""


def fates(sources: Sequence[SourceRecord]) -> bytes:
    """A bar per source, all of them as long: shares of the documents that were read."""
    counts = [{"trained on": one.train.documents, "held out": one.heldout.documents} | grouped(one.dropped) for one in sources]
    with Canvas(1.1 + 0.4 * len(sources)) as canvas:
        (axes,) = canvas.axes()
        left = [0.0] * len(sources)
        for fate, color in FATES.items():
            if not any(count.get(fate) for count in counts):
                continue
            shares = [100 * count.get(fate, 0) / max(1, sum(count.values())) for count in counts]
            bars = axes.barh(range(len(sources)), shares, left=left, height=0.66, color=color, label=fate, edgecolor="white", linewidth=0.6)
            labels = [f"{share:.0f}%" if share > _NARROW else "" for share in shares]
            axes.bar_label(bars, labels, label_type="center", fontsize=8.5, color="white" if color in _DARK else INK)
            left = [before + share for before, share in zip(left, shares, strict=True)]
        for row, count in enumerate(counts):
            _beside(axes, f"{sum(count.values()):,} read", (100, row))
        _rows(axes, [one.name for one in sources])
        axes.set_xlim(0, 100)
        axes.xaxis.set_major_formatter(PercentFormatter())
        canvas.figure.legend(loc="outside upper left", ncols=5)
        return canvas.png()


def tokens(sources: Sequence[SourceRecord]) -> bytes:
    """A bar per source: warm for the domain, cool for general text."""
    colors, total = source_colors({one.name: one.group for one in sources}), max(1, sum(one.train.tokens for one in sources))
    with Canvas(0.8 + 0.36 * len(sources)) as canvas:
        (axes,) = canvas.axes()
        for row, one in enumerate(sources):
            axes.barh(row, one.train.tokens, height=0.62, color=colors.get(one.name, SOFT))
            _beside(axes, f"{units.count(one.train.tokens)}, {100 * one.train.tokens / total:.1f}%", (one.train.tokens, row))
        _rows(axes, [f"{one.name} ({one.group}, {one.language})" for one in sources])
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(value)))
        axes.set_xlabel("tokens to train on")
        return canvas.png()


def lengths(histograms: Mapping[str, Mapping[str, int]], groups: Mapping[str, str]) -> bytes:
    """A panel per source: binary logarithm of bytes -> share of its documents."""
    colors = source_colors(groups)
    exponents = [int(exponent) for histogram in histograms.values() for exponent in histogram] or [0]
    first, last = min(exponents), max(exponents)
    ticks = list(range(first, last + 2, max(2, (last + 1 - first) // 4)))
    down = -(-len(histograms) // _PANELS)
    with Canvas(0.5 + 1.65 * down) as canvas:
        canvas.figure.set_layout_engine("constrained", hspace=0.12)
        for place, (name, histogram) in enumerate(histograms.items(), 1):
            axes, total = canvas.figure.add_subplot(down, _PANELS, place), max(1, sum(histogram.values()))
            places = [int(exponent) + 0.5 for exponent in histogram]
            axes.bar(places, [100 * number / total for number in histogram.values()], width=0.92, color=colors.get(name, SOFT))
            axes.set_title(name if len(name) <= _TITLE else f"{name[: _TITLE - 1]}…", fontsize=9.5)
            axes.set_xlim(first - 0.2, last + 1.2)
            axes.set_xticks(ticks, [_bytes(tick) for tick in ticks])
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
            axes.tick_params(labelsize=8)
            axes.grid(axis="x", visible=False)
        return canvas.png()


def clusters(sizes: Mapping[int, int]) -> bytes:
    """Documents in a cluster -> clusters of that size; both on log axes when there are many sizes."""
    found, wide = sorted(sizes.items()), max(sizes) > _FEW
    with Canvas(2.8) as canvas:
        (axes,) = canvas.axes()
        if wide:
            axes.plot([size for size, _ in found], [number for _, number in found], "o", markersize=5, color=AGAIN, markeredgecolor="#a8741a")
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(value)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            bars = axes.bar([size for size, _ in found], [number for _, number in found], width=0.7, color=AGAIN)
            axes.bar_label(bars, fontsize=8.5, color=SOFT, padding=2)
            axes.set_xlim(1.4, max(_FEW // 2, max(sizes)) + 0.6)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="x", visible=False)
        if wide or max(sizes.values()) > 50 * min(sizes.values()):
            axes.set_yscale("log")
            axes.set_ylim(0.7, 2.2 * max(sizes.values()))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(value)))
        axes.set_xlabel("documents in the cluster, the one that stays included")
        axes.set_ylabel("clusters")
        return canvas.png()


def cut(curve: Curve, record: ClassifierRecord) -> bytes:
    """Precision against recall, and both against the threshold; the cut is marked in both."""
    with Canvas(3.7) as canvas:
        left, right = canvas.axes(2)
        _trade(left, curve, record)
        _by_threshold(right, curve, record)
        for axes in (left, right):
            axes.set_ylim(0, 104)
            axes.yaxis.set_major_formatter(PercentFormatter())
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
        return canvas.png()


def _trade(axes: Axes, curve: Curve, record: ClassifierRecord) -> None:
    bound = "estimated" if curve.resolved else "estimated, an upper bound"
    axes.plot(_percent(curve.recall), _percent(curve.precision), color=DOMAIN, linestyle="-" if curve.resolved else "--", label=bound)
    if curve.true_precision and curve.true_recall:
        axes.plot(_percent(curve.true_recall), _percent(curve.true_precision), color=INK, linewidth=1.2, label="true")
        if record.true_recall is not None and record.true_precision is not None:
            axes.plot(
                [100 * record.true_recall],
                [100 * record.true_precision],
                "o",
                color="white",
                markeredgecolor=INK,
                markersize=8,
                zorder=5,
                label="the cut, true",
            )
    axes.plot([100 * record.recall], [100 * record.precision], "o", color=DOMAIN, markersize=8, zorder=5, label="the cut")
    axes.set_title("precision against recall")
    axes.set_xlabel("recall: domain text that stays")
    axes.set_ylabel("precision")
    axes.set_xlim(0, 104)
    axes.xaxis.set_major_formatter(PercentFormatter())


def _by_threshold(axes: Axes, curve: Curve, record: ClassifierRecord) -> None:
    """Scores of 0 and 1 have no place on an axis of odds; what is beyond a millionth is drawn there."""
    scores = [min(max(score, 1e-6), 1 - 1e-6) for score in curve.thresholds]
    axes.plot(scores, _percent(curve.precision), color=DOMAIN, linestyle="-" if curve.resolved else "--", label="precision")
    axes.plot(scores, _percent(curve.recall), color=GENERAL, label="recall")
    axes.plot(scores, _percent(curve.kept), color=SOFT, label="share of the pool kept")
    axes.axvline(min(max(record.cut, 1e-6), 1 - 1e-6), color=INK, linestyle=":", linewidth=1.4, label=f"the cut, {score(record.cut)}")
    axes.set_xscale("logit")
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = [tick for tick in (1e-6, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.99, 1 - 1e-4) if scores[0] <= tick <= scores[-1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_title("what a cut keeps")
    axes.set_xlabel("score from which a document stays, on an axis of odds")


def score(value: float) -> str:
    """Three digits, and more close to 1: what is typed as a cut must not be another."""
    return f"{value:.{max(3, 2 - math.floor(math.log10(max(1e-12, 1 - value))))}g}" if value < 1 else f"{value:g}"


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]


def _bytes(exponent: int) -> str:
    return units.size(2**exponent).replace(" ", "").replace("iB", "")


def _beside(axes: Axes, text: str, place: tuple[float, float]) -> None:
    axes.annotate(text, place, xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=SOFT, annotation_clip=False)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
