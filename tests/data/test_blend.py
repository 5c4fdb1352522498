from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt.data.blend import MAX_SAMPLES, RESOLUTION, Blend

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(1e-6, 1e6), min_size=1)


def slowly(blend: Blend, n: int) -> list[tuple[int, int]]:
    """The definition itself: all samples by exact time, ties by order of sources."""
    times = [(Fraction(2 * k + 1, 2 * weight), source, k) for source, weight in enumerate(blend.integer_weights) if weight for k in range(n)]
    return [(source, k) for _, source, k in sorted(times)[:n]]


@settings(max_examples=50)
@given(WEIGHTS, st.integers(1, 60))
def test_is_its_definition(weights: dict[str, float], n: int) -> None:
    blend = Blend(weights)
    sources, within = blend.assign(0, n)
    assert list(zip(sources.tolist(), within.tolist(), strict=True)) == slowly(blend, n)


@given(WEIGHTS, st.integers(0, 10**9 - 200), st.lists(st.integers(0, 200), max_size=6))
def test_any_cut_gives_the_same_assignment(weights: dict[str, float], start: int, cuts: list[int]) -> None:
    blend = Blend(weights)
    marks = sorted({0, 200, *cuts})
    whole = np.stack(blend.assign(start, start + 200))
    parts = [np.stack(blend.assign(start + low, start + high)) for low, high in pairwise(marks)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@given(WEIGHTS, st.integers(0, 10**9 - 500))
def test_samples_of_a_source_come_in_order_without_gaps(weights: dict[str, float], start: int) -> None:
    blend = Blend(weights)
    sources, within = blend.assign(start, start + 500)
    before, after = blend.counts(start), blend.counts(start + 500)
    for index, name in enumerate(blend.names):
        np.testing.assert_array_equal(within[sources == index], np.arange(before[name], after[name]))


@given(WEIGHTS, st.integers(1, 10**9))
def test_counts_follow_the_weights_at_every_moment(weights: dict[str, float], n: int) -> None:
    counts, total = Blend(weights).counts(n), sum(weights.values())
    assert sum(counts.values()) == n
    for name, weight in weights.items():
        # Within the number of sources of the exact share; 2^-30 of resolution counts beyond 10^8 samples.
        assert abs(counts[name] - n * weight / total) <= len(weights) + n * len(weights) / RESOLUTION


def test_equal_weights_take_turns() -> None:
    sources, within = Blend({"a": 1, "b": 1, "c": 1}).assign(0, 6)
    assert sources.tolist() == [0, 1, 2, 0, 1, 2]
    assert within.tolist() == [0, 0, 0, 1, 1, 1]


def test_exact_at_a_billion_samples() -> None:
    counts = Blend({"domain": 0.5, "general": 0.45, "german": 0.03, "french": 0.02}).counts(10**9)
    assert counts == {"domain": 500_000_000, "general": 450_000_000, "german": 30_000_000, "french": 20_000_000}


def test_a_weight_however_small_is_not_zero() -> None:
    """A millionth of a thousandth is less than the blend's resolution; its source still has its turn."""
    assert Blend({"a": 1.0, "b": 1e-12}).integer_weights[1] == 1


def test_weight_zero_never_appears() -> None:
    assert Blend({"a": 0, "b": 2}).counts(1000) == {"a": 0, "b": 1000}


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": 1.0, "b": -1.0}])
def test_impossible_weights(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weights must be"):
        Blend(weights)


def test_too_many_samples() -> None:
    with pytest.raises(ValueError, match="a blend has from 0"):
        Blend({"a": 1}).counts(MAX_SAMPLES + 1)
