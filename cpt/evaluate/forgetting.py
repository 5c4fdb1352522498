"""Paired statistics of two evaluations on the same items: what was forgotten and what was gained, not only their difference.

An average hides both: with b items that became wrong and c that became right out of n, delta = (c - b) / n and
SE = sqrt((b + c) - (b - c)^2 / n) / n, the standard error of a mean of paired differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cpt.core.errors import Problem, UserError
from cpt.core.records import BenchmarkScore, EvaluationRecord, SourceLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedScore:
    """One benchmark before and after, item by item. Accuracies and their difference are shares, not percent."""

    name: str
    group: str
    items: int
    chance: float
    before: float
    after: float
    forgotten: int
    """Items right before and wrong after."""
    gained: int
    """Items wrong before and right after."""

    @property
    def delta(self) -> float:
        """After minus before."""
        return (self.gained - self.forgotten) / self.items

    @property
    def standard_error(self) -> float:
        """Of `delta`, paired."""
        b, c, n = self.forgotten, self.gained, self.items
        return math.sqrt((b + c) - (b - c) ** 2 / n) / n

    @property
    def verdict(self) -> str:
        """better | worse | within noise, at two standard errors."""
        return verdict(self.delta, self.standard_error)


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroDelta:
    """Mean difference over the benchmarks of a group, each counting once."""

    group: str
    benchmarks: int
    delta: float
    standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LossChange:
    """Held-out loss of one source or group (nats a token) and bits per byte, before and after."""

    name: str
    group: str
    before: float
    after: float
    bits_before: float
    bits_after: float

    @property
    def delta(self) -> float:
        """After minus before: below zero is better."""
        return self.after - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that changed between two evaluations of one run."""

    sources: list[LossChange]
    groups: list[LossChange]
    """Domain and general: means over sources, each source counting once."""
    benchmarks: list[PairedScore]
    macros: list[MacroDelta]


def verdict(delta: float, standard_error: float) -> str:
    """Two standard errors separate a change from noise."""
    if abs(delta) <= 2 * standard_error:
        return "within noise"
    return "better" if delta > 0 else "worse"


def compare(before: EvaluationRecord, after: EvaluationRecord) -> Comparison:
    """Raises `UserError` when the two did not see the same items or sources."""
    sources = [_change(_same_source(before, loss), loss) for loss in after.losses]
    benchmarks = [pair(_same_benchmark(before, score), score) for score in after.benchmarks]
    return Comparison(
        sources=sources,
        groups=[_group(group, sources) for group in ("domain", "general") if any(change.group == group for change in sources)],
        benchmarks=benchmarks,
        macros=[macro(group, benchmarks) for group in ("domain", "general") if any(score.group == group for score in benchmarks)],
    )


def pair(before: BenchmarkScore, after: BenchmarkScore) -> PairedScore:
    """Raises `UserError` unless both answered exactly the same items."""
    if before.correct.keys() != after.correct.keys():
        raise _refusal(f"{before.name}: {len(before.correct.keys() ^ after.correct.keys())} item(s) in only one of the two")
    flips = [(before.correct[item], after.correct[item]) for item in after.correct]
    return PairedScore(
        name=after.name,
        group=after.group,
        items=len(flips),
        chance=after.chance,
        before=before.accuracy,
        after=after.accuracy,
        forgotten=flips.count((True, False)),
        gained=flips.count((False, True)),
    )


def macro(group: str, scores: Sequence[PairedScore]) -> MacroDelta:
    """Benchmarks are independent samples, so the error of their mean is sqrt(sum SE^2) / k."""
    chosen = [score for score in scores if score.group == group]
    error = math.sqrt(sum(score.standard_error**2 for score in chosen)) / len(chosen)
    return MacroDelta(group=group, benchmarks=len(chosen), delta=sum(score.delta for score in chosen) / len(chosen), standard_error=error)


def _same_source(record: EvaluationRecord, wanted: SourceLoss) -> SourceLoss:
    found = [loss for loss in record.losses if (loss.name, loss.text_sha256) == (wanted.name, wanted.text_sha256)]
    if not found:
        raise _refusal(f"source {wanted.name} over the same {wanted.tokens} tokens is not in `{record.label}`")
    return found[0]


def _same_benchmark(record: EvaluationRecord, wanted: BenchmarkScore) -> BenchmarkScore:
    found = [score for score in record.benchmarks if score.name == wanted.name]
    if not found:
        raise _refusal(f"benchmark {wanted.name} is not in `{record.label}`")
    return found[0]


def _refusal(what: str) -> UserError:
    return UserError(
        Problem(where="evaluation", what=what, why="only the same items can be paired", fix="remove the run's evaluation folder and `cpt evaluate` again")
    )


def _change(before: SourceLoss, after: SourceLoss) -> LossChange:
    return LossChange(
        name=after.name, group=after.group, before=before.loss, after=after.loss, bits_before=before.bits_per_byte, bits_after=after.bits_per_byte
    )


def _group(group: str, sources: Sequence[LossChange]) -> LossChange:
    chosen = [change for change in sources if change.group == group]

    def mean(name: str) -> float:
        return float(sum(getattr(change, name) for change in chosen)) / len(chosen)

    return LossChange(name=group, group=group, before=mean("before"), after=mean("after"), bits_before=mean("bits_before"), bits_after=mean("bits_after"))
