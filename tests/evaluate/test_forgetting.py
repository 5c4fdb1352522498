"""Paired statistics against values computed by hand."""

from __future__ import annotations

import math

import pytest

from cpt.core.errors import UserError
from cpt.core.records import BenchmarkScore, EvaluationRecord, SourceLoss
from cpt.evaluate.forgetting import compare, macro, pair, verdict


def score(answers: str, name: str = "quiz", group: str = "general") -> BenchmarkScore:
    """`answers`: one character per item, 1 right, 0 wrong."""
    correct = {f"item{index}": answer == "1" for index, answer in enumerate(answers)}
    share = sum(correct.values()) / len(correct)
    return BenchmarkScore(name=name, group=group, accuracy=share, standard_error=0.0, items=len(correct), chance=0.25, correct=correct)


def loss(name: str, group: str, value: float, bits: float = 1.0, text: str = "a") -> SourceLoss:
    return SourceLoss(name=name, group=group, loss=value, bits_per_byte=bits, tokens=100, text_sha256=text)


def evaluation(label: str, losses: list[SourceLoss], scores: list[BenchmarkScore]) -> EvaluationRecord:
    return EvaluationRecord(label=label, step=0, weights="", losses=losses, benchmarks=scores, seconds=0.0)


def test_flips_are_counted_separately_and_the_error_is_paired() -> None:
    paired = pair(score("1111100000"), score("1110011100"))
    assert (paired.items, paired.forgotten, paired.gained) == (10, 2, 3)
    assert paired.delta == pytest.approx(0.1)
    assert paired.standard_error == pytest.approx(math.sqrt(5 - 1 / 10) / 10)  # sqrt((b+c) - (b-c)^2/n) / n = 0.2214
    assert paired.standard_error == pytest.approx(0.22136, abs=1e-5)
    assert paired.verdict == "within noise"


def test_error_is_the_standard_error_of_the_mean_difference() -> None:
    before, after = "1101001110", "0111011100"
    differences = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
    mean = sum(differences) / 10
    variance = sum((d - mean) ** 2 for d in differences) / 10
    assert pair(score(before), score(after)).standard_error == pytest.approx(math.sqrt(variance / 10))


def test_items_in_another_order_pair_by_identity() -> None:
    before, after = score("1100"), score("1010")
    shuffled = BenchmarkScore(**{**after.as_dict(), "correct": dict(reversed(after.correct.items()))})
    assert (pair(before, shuffled).forgotten, pair(before, shuffled).gained) == (1, 1)


def test_a_missing_item_is_refused_both_ways() -> None:
    for one, two in (("111", "1111"), ("1111", "111")):
        with pytest.raises(UserError, match=r"quiz: 1 item"):
            pair(score(one), score(two))


def test_macro_averages_benchmarks_and_adds_their_errors() -> None:
    scores = [
        pair(score("1100", "a"), score("1111", "a")),
        pair(score("1100", "b"), score("0000", "b")),
        pair(score("10", "c", "domain"), score("01", "c", "domain")),
    ]
    result = macro("general", scores)
    assert result.benchmarks == 2 and result.delta == pytest.approx(0.0)
    assert result.standard_error == pytest.approx(math.sqrt(2 * (1 / 4) ** 2) / 2)  # each: sqrt(2 - 4/4)/4 = 1/4


def test_verdict_needs_more_than_two_standard_errors() -> None:
    assert [verdict(d, 0.01) for d in (0.021, 0.02, -0.02, -0.021)] == ["better", "within noise", "within noise", "worse"]


def test_compare_gives_sources_groups_and_benchmarks() -> None:
    before = evaluation("before", [loss("listings", "domain", 3.0, 2.0), loss("novels", "general", 2.0), loss("french", "general", 4.0)], [score("1100")])
    after = evaluation("after", [loss("listings", "domain", 2.5, 1.5), loss("novels", "general", 2.25), loss("french", "general", 4.25)], [score("1000")])
    result = compare(before, after)
    assert {change.name: change.delta for change in result.groups} == {"domain": -0.5, "general": 0.25}
    assert result.sources[0].bits_before == 2.0 and result.sources[0].bits_after == 1.5
    assert result.benchmarks[0].forgotten == 1 and [m.group for m in result.macros] == ["general"]


@pytest.mark.parametrize(
    ("before", "what"),
    [
        (evaluation("before", [], [score("1")]), "source listings"),
        (evaluation("before", [loss("listings", "domain", 3.0, text="b")], [score("1")]), "source listings over the same 100 tokens"),
        (evaluation("before", [loss("listings", "domain", 3.0)], []), "benchmark quiz"),
    ],
)
def test_what_was_not_measured_before_is_refused(before: EvaluationRecord, what: str) -> None:
    with pytest.raises(UserError, match=what):
        compare(before, evaluation("after", [loss("listings", "domain", 2.5)], [score("1")]))
