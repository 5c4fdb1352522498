"""Simulated fabrics with known faults: every culprit is named, nobody else, in few rounds."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt.topology.bisect import diagnose, inside, search
from cpt.topology.culprits import Group, Kind, Search, Verdict

LINE = 50e9


@dataclass
class Fabric:
    """Every group gets the least of what it uses, times noise of +-10 %. In a ring that are neighbors' links, else all."""

    nodes: Group
    slow_nodes: dict[str, float] = field(default_factory=dict)
    slow_links: dict[frozenset[str], float] = field(default_factory=dict)
    slow_join: tuple[set[str], float] = (set(), 1.0)
    ring: bool = False
    load: Sequence[float] = ()
    """Share of the line rate that is left in a round for everybody."""
    noise: random.Random = field(default_factory=lambda: random.Random(0))
    rounds: int = 0

    def bandwidth(self, group: Group) -> float:
        used = [*pairwise(group), (group[-1], group[0])] if self.ring else list(combinations(group, 2))
        side, factor = self.slow_join
        shares = [1.0, *(self.slow_nodes.get(node, 1.0) for node in group), *(self.slow_links.get(frozenset(pair), 1.0) for pair in used)]
        if any((a in side) != (b in side) for a, b in used):
            shares.append(factor)
        return LINE * min(shares) * self.noise.uniform(0.9, 1.1)

    def measure(self, groups: list[Group]) -> list[float]:
        members = [node for group in groups for node in group]
        assert len(members) == len(set(members)), "groups of a round are disjoint"
        assert all(len(group) > 1 for group in groups)
        self.rounds += 1
        load = self.load[self.rounds % len(self.load)] if self.load else 1.0
        return [self.bandwidth(group) * load for group in groups]


def run(search_: Search[Verdict], fabric: Fabric) -> Verdict:
    try:
        groups = next(search_)
        while True:
            groups = search_.send(fabric.measure(groups))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def names(count: int) -> Group:
    return tuple(f"node{index}" for index in range(1, count + 1))


def culprits(verdict: Verdict) -> set[tuple[Kind, frozenset[str]]]:
    return {(finding.kind, frozenset(finding.nodes)) for finding in verdict.findings}


EXPECTED = st.sampled_from([LINE, 0.0])
"""By the data sheet, or by peers alone."""


@given(st.integers(1, 64), EXPECTED, st.booleans(), st.randoms(use_true_random=False))
def test_a_good_fabric_has_no_culprit(count: int, expected: float, ring: bool, noise: random.Random) -> None:
    fabric = Fabric(names(count), ring=ring, noise=noise)
    assert run(search(fabric.nodes, expected), fabric).findings == ()
    assert fabric.rounds <= (1 if expected else 5)


@given(st.data(), st.integers(3, 64), EXPECTED, st.randoms(use_true_random=False))
def test_a_slow_node_is_named_in_log_n_rounds(data: st.DataObject, count: int, expected: float, noise: random.Random) -> None:
    fabric = Fabric(names(count), noise=noise)
    guilty = data.draw(st.sampled_from(fabric.nodes))
    fabric.slow_nodes = {guilty: 0.4}
    verdict = run(search(fabric.nodes, expected), fabric)
    assert culprits(verdict) == {(Kind.node, frozenset([guilty]))}
    assert verdict.findings[0].bandwidth == pytest.approx(0.4 * LINE, rel=0.11)
    assert not verdict.rounds[-1][0].slow and guilty not in verdict.rounds[-1][0].nodes, "the rest was measured, and is fast"
    assert fabric.rounds == len(verdict.rounds) <= (math.ceil(math.log2(count)) + 3 if expected else 8)


@given(st.data(), st.integers(3, 64), EXPECTED, st.booleans(), st.randoms(use_true_random=False))
def test_a_slow_link_is_named(data: st.DataObject, count: int, expected: float, ring: bool, noise: random.Random) -> None:
    """In a ring it is seen when it lies between neighbors."""
    fabric = Fabric(names(count), ring=ring, noise=noise)
    first = data.draw(st.integers(0, count - 1))
    second = (first + 1) % count if ring else data.draw(st.integers(0, count - 1).filter(lambda other: other != first))
    link = frozenset([fabric.nodes[first], fabric.nodes[second]])
    fabric.slow_links = {link: 0.4}
    verdict = run(search(fabric.nodes, expected), fabric)
    assert culprits(verdict) == {(Kind.link, link)}
    assert not verdict.rounds[-1][0].slow
    halvings = math.ceil(math.log2(count))
    assert fabric.rounds <= (halvings + 4 if expected else 2 * halvings + 5)


@given(st.integers(4, 64), EXPECTED, st.booleans(), st.randoms(use_true_random=False))
def test_what_joins_two_fast_halves_is_named(count: int, expected: float, ring: bool, noise: random.Random) -> None:
    """By peers, where both halves are of pairs."""
    count = count if expected else count // 4 * 4
    fabric = Fabric(names(count), ring=ring, noise=noise)
    half = fabric.nodes[: math.ceil(count / 2)]
    fabric.slow_join = (set(half), 0.4)
    (finding,) = run(search(fabric.nodes, expected), fabric).findings
    assert (finding.kind, finding.nodes, finding.other, finding.exclude) == (Kind.joint, half, fabric.nodes[len(half) :], ())
    assert fabric.rounds <= (4 if expected else 6)


@pytest.mark.parametrize("count", [6, 16, 60])
def test_leaves_are_cut_where_they_join(count: int) -> None:
    """Their nodes are dealt round, and one leaf is larger."""
    nodes = names(count)
    large = tuple(node for index, node in enumerate(nodes) if index % 3)
    small = tuple(node for node in nodes if node not in large)
    fabric = Fabric(nodes, slow_join=(set(small), 0.4))
    (finding,) = run(search(nodes, LINE, leaves=[small, large]), fabric).findings
    assert (finding.kind, finding.nodes, finding.other) == (Kind.joint, small, large)


def test_who_is_slow_inside_is_not_measured_between_nodes() -> None:
    fabric, question = Fabric(names(8), slow_nodes={"node5": 0.2}), diagnose(names(8), 8, (LINE, LINE))
    assert len(next(question)) == 8
    inside_ = [LINE] * 2 + [0.3 * LINE] + [LINE] * 5
    question.send(inside_)
    groups = question.send(inside_)
    assert groups == [tuple(node for node in names(8) if node != "node3")]
    found = {Kind.inside: ("node3",), Kind.node: ("node5",)}
    try:
        while True:
            groups = question.send(fabric.measure(groups))
    except StopIteration as end:
        assert {finding.kind: finding.nodes for finding in end.value.findings} == found


@given(st.data(), st.integers(5, 64), EXPECTED, st.randoms(use_true_random=False))
def test_several_slow_nodes_are_all_named(data: st.DataObject, count: int, expected: float, noise: random.Random) -> None:
    """Among peers alone fewer than a quarter, so that no more than half of the pairs are slow."""
    fabric = Fabric(names(count), noise=noise)
    most = (count - 1) // 4 if not expected else max(1, count // 2 - 1)
    guilty = data.draw(st.sets(st.sampled_from(fabric.nodes), min_size=1, max_size=most))
    fabric.slow_nodes = {node: data.draw(st.sampled_from([0.0, 0.1, 0.4])) for node in sorted(guilty)}
    assert culprits(run(search(fabric.nodes, expected), fabric)) == {(Kind.node, frozenset([node])) for node in guilty}


@given(st.data(), st.integers(8, 32), st.randoms(use_true_random=False))
def test_a_link_and_a_node_at_once(data: st.DataObject, count: int, noise: random.Random) -> None:
    fabric = Fabric(names(count), noise=noise)
    a, b, c = data.draw(st.permutations(fabric.nodes))[:3]
    fabric.slow_nodes, fabric.slow_links = {c: 0.2}, {frozenset([a, b]): 0.4}
    assert culprits(run(search(fabric.nodes, LINE), fabric)) == {(Kind.node, frozenset([c])), (Kind.link, frozenset([a, b]))}


@given(st.data(), st.integers(8, 64), st.randoms(use_true_random=False))
def test_a_load_that_comes_and_goes_blames_nobody_else(data: st.DataObject, count: int, noise: random.Random) -> None:
    """Without an expectation: who is named was slow beside peers of the same moment."""
    guilty = data.draw(st.sampled_from(names(count)))
    fabric = Fabric(names(count), slow_nodes={guilty: 0.1}, noise=noise, load=data.draw(st.lists(st.sampled_from([1.0, 0.7]), min_size=1, max_size=9)))
    assert culprits(run(search(fabric.nodes), fabric)) == {(Kind.node, frozenset([guilty]))}


@pytest.mark.parametrize("slow", [["node1"], ["node2"], ["node1", "node2"]])
def test_of_two_nodes_nobody_can_tell_which(slow: list[str]) -> None:
    fabric = Fabric(names(2), slow_nodes=dict.fromkeys(slow, 0.2))
    (finding,) = run(search(fabric.nodes, LINE), fabric).findings
    assert (finding.kind, finding.nodes) == (Kind.unclear, ("node1", "node2"))


def test_when_no_node_is_good_none_is_accused() -> None:
    fabric = Fabric(names(8), slow_nodes=dict.fromkeys(names(8), 0.2))
    (finding,) = run(search(fabric.nodes, LINE), fabric).findings
    assert (finding.kind, set(finding.nodes)) == (Kind.unclear, set(names(8)))


def test_inside_of_nodes_the_median_is_the_measure() -> None:
    speeds = dict(zip(names(6), (100e9, 95e9, 30e9, 105e9, 98e9, 0.0), strict=True))
    for expected in (0.0, 100e9):
        question = inside(names(6), expected)
        assert next(question) == [(node,) for node in names(6)]
        once = speeds | {"node1": 20e9}
        assert question.send(list(once.values())) == [(node,) for node in names(6)], "again: some are slow"
        with pytest.raises(StopIteration) as end:
            question.send(list(speeds.values()))
        assert culprits(end.value.value) == {(Kind.inside, frozenset([node])) for node in ("node3", "node6")}
