"""Clusters are those of a slow union-find."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt.corpus.clusters import components, edges_of

HIGH = 2**63  # what a signed number cannot hold
PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30)), max_size=40)


def slow(pairs: list[tuple[int, int]]) -> dict[int, int]:
    """Number -> the smallest number in its set, of every number that is in a pair."""
    first = {number: number for pair in pairs for number in pair}

    def root(number: int) -> int:
        return number if first[number] == number else root(first[number])

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return {number: root(number) for number in first}


def fast(edges: np.ndarray) -> dict[int, int]:
    nodes, firsts = components(edges)
    assert nodes.dtype == firsts.dtype == np.uint64
    assert nodes.tolist() == sorted(set(nodes.tolist()))
    return dict(zip(nodes.tolist(), firsts.tolist(), strict=True))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(HIGH, HIGH + 30)) | st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_components_are_those_of_union_find(pairs: list[tuple[int, int]]) -> None:
    assert fast(np.array(pairs, dtype=np.uint64).reshape(-1, 2).T) == slow(pairs)


@given(PAIRS)
def test_documents_are_linked_by_equal_keys(pairs: list[tuple[int, int]]) -> None:
    keys, numbers = np.array(pairs, dtype=np.uint64).reshape(-1, 2).T
    edges = edges_of(keys + np.uint64(HIGH), numbers)
    assert edges.dtype == np.uint64 and edges.shape[0] == 2
    assert (edges[0] < edges[1]).all(), "the smallest comes first, and none is linked to itself"
    groups = [{number for key, number in pairs if key == one} for one in {key for key, _ in pairs}]
    assert edges.shape[1] <= len(pairs) - len(groups)
    assert fast(edges) == slow([pair for group in groups for pair in combinations(sorted(group), 2)])


@pytest.mark.parametrize("length", [0, 2])
def test_none_is_a_duplicate_where_no_key_is_shared(length: int) -> None:
    edges = edges_of(np.arange(length, dtype=np.uint64), np.arange(length, dtype=np.uint64))
    assert edges.shape == (2, 0) and fast(edges) == {}


def test_a_long_chain_is_one_cluster() -> None:
    numbers = np.arange(100_000, dtype=np.uint64)
    assert set(components(np.stack([numbers[:-1], numbers[1:]]))[1].tolist()) == {0}
