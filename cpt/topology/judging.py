"""What a search of the fabric knows so far: which groups were slow, by what they are judged, and who is good."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from cpt.topology.culprits import Finding, Group, Kind, Measured, Search

SLOW = 0.7
"""Below this share of what is expected a group is slow: collectives reach their data sheet's share within some percent (nccl-tests), faults cost half or more."""

SLOW_BESIDE = 0.5
"""The same share of what peers reach, where nothing is known but them."""

SIMILAR = 1.5
"""Groups whose numbers of nodes differ by no more than this factor are peers: small machines give larger groups less."""


@dataclass(frozen=True)
class Leaf:
    """Where halving ends: a slow pair, a node that was in no fast group, or the two sides of a join."""

    nodes: Group
    other: Group = ()


type Inner = Generator[list[Group], list[bool], list[Leaf]]
"""As `Search`, but is sent which of the groups are slow."""


@dataclass
class Judge:
    """Of one search."""

    nodes: Group
    expected: float
    threshold: float
    places: Mapping[str, int]
    """Node -> its leaf."""
    good: set[str] = field(default_factory=set)
    """Were in a fast group."""
    out: set[str] = field(default_factory=set)
    """Are left out from now on."""
    rounds: list[tuple[Measured, ...]] = field(default_factory=list)

    def over[T](self, inner: Generator[list[Group], list[bool], T]) -> Search[T]:
        """Turn bandwidths into verdicts for `inner`, and write them down."""
        try:
            groups = next(inner)
            while True:
                controls = self._controls(groups)
                speeds = yield [*groups, *controls]
                groups = inner.send(self._judged([*groups, *controls], speeds, len(groups)))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _controls(self, groups: Sequence[Group]) -> list[Group]:
        """All other nodes known to be good, in groups as large as those asked for: peers of the same moment, and the same load on what is shared."""
        if self.expected:
            return []
        busy, size = {node for group in groups for node in group}, max(map(len, groups))
        free = [node for node in self.nodes if node in self.good and node not in busy]
        return [tuple(free[i : i + size]) for i in range(0, len(free) - size + 1, size)]

    def _judged(self, groups: Sequence[Group], speeds: Sequence[float], asked: int) -> list[bool]:
        now = list(zip(groups, speeds, strict=True))
        measures = [self.expected or self._by_peers(group, now[:asked], now[asked:]) for group in groups]
        slow = [speed < self.threshold * measure or speed <= 0 for speed, measure in zip(speeds, measures, strict=True)]
        self.good |= {node for group, bad in zip(groups, slow, strict=True) if not bad for node in group}
        rows = zip(now, measures, slow, strict=True)
        self.rounds.append(tuple(Measured(nodes=group, bandwidth=speed, expected=measure, slow=bad) for (group, speed), measure, bad in rows))
        return slow[:asked]

    def _by_peers(self, group: Group, asked: Sequence[tuple[Group, float]], controls: Sequence[tuple[Group, float]]) -> float:
        """The lower of what similar groups reached earlier and what they reach at this moment; in a first round what is usual in it. 0 without any."""
        earlier = _nearest(group, [(m.nodes, m.bandwidth) for row in self.rounds for m in row if not m.slow])
        beside = _nearest(group, controls)
        known = [upper_median(speeds) for speeds in (earlier, beside) if speeds]
        usual = _nearest(group, [peer for peer in asked if peer[0] != group])
        return min(known) if known else upper_median([*usual, *(speed for other, speed in asked if other == group)]) if usual else 0.0

    def triangle(self) -> Generator[list[Group], list[bool], list[Leaf]]:
        """Of three nodes no two pairs are disjoint: one after the other, then the best is the measure."""
        nodes, start = self.rest, len(self.rounds)
        for pair in combinations(nodes, 2):
            yield [pair]
        best = max(row[0].bandwidth for row in self.rounds[start:])
        judged = [replace(row[0], expected=best, slow=row[0].bandwidth <= self.threshold * best) for row in self.rounds[start:]]
        self.rounds[start:] = [(m,) for m in judged]
        self.good = self.good - set(nodes) | {node for m in judged if not m.slow for node in m.nodes}
        return [Leaf(m.nodes) for m in judged if m.slow]

    @property
    def rest(self) -> Group:
        """Nodes that are still in."""
        return tuple(node for node in self.nodes if node not in self.out)

    def leave_out(self, found: Sequence[Finding]) -> bool:
        """Go on without the guilty; False when that leaves out nobody."""
        guilty = {node for finding in found for node in finding.exclude}
        self.out |= guilty
        self.good -= guilty
        return bool(guilty)

    def measured(self, group: Iterable[str]) -> Measured | None:
        """The last time that exactly these were measured."""
        wanted = set(group)
        return next((m for row in reversed(self.rounds) for m in row if set(m.nodes) == wanted), None)

    def partners(self, unknown: Sequence[str]) -> list[Group]:
        """Disjoint pairs that were not measured yet: each unknown node with a good one; with another unknown one where none is good."""
        free = [node for node in self.nodes if node in self.good] or list(unknown)
        found: list[Group] = []
        for node in unknown:
            taken = {member for pair in found for member in pair}
            partner = next((p for p in free if p not in taken and p != node and not self.measured((node, p))), None) if node not in taken else None
            if partner:
                found.append((node, partner))
        return found

    def knows_other(self, pair: Group, node: str) -> bool:
        """Whether who was measured with `node` is known to be good."""
        return self.good.issuperset(set(pair) - {node})

    def finding(self, kind: Kind, leaf: Leaf) -> Finding:
        """With the slowest of what was measured of it."""
        sides = (set(leaf.nodes), set(leaf.other))
        slow = [(set(m.nodes), m) for row in self.rounds for m in row if m.slow]
        if leaf.other:
            about = [m for nodes, m in slow if all(nodes & side for side in sides)]
        else:
            about = [m for nodes, m in slow if nodes <= sides[0] or nodes >= sides[0]]
        worst = min(about, key=lambda m: (len(m.nodes), m.bandwidth))
        return Finding(kind=kind, nodes=leaf.nodes, other=leaf.other, bandwidth=worst.bandwidth, expected=worst.expected)


def halves(group: Group, places: Mapping[str, int] | None = None) -> tuple[Group, Group]:
    """The first is the larger by at most one; with `places` cut between two of them, if no half gets less than a quarter."""
    middle, least = math.ceil(len(group) / 2), math.ceil(len(group) / 4)
    borders = [i for i in range(least, len(group) - least + 1) if places and places.get(group[i - 1]) != places.get(group[i])]
    cut = min(borders, key=lambda border: abs(border - middle), default=middle)
    return group[:cut], group[cut:]


def pairs(nodes: Sequence[str]) -> list[Group]:
    """Neighbors; the last three stay together where one would be alone."""
    starts = range(0, len(nodes) - 1, 2)
    return [tuple(nodes[i : len(nodes) if i + 3 == len(nodes) else i + 2]) for i in starts]


def similar(one: Group, other: Group) -> bool:
    """In their number of nodes."""
    return max(len(one), len(other)) <= SIMILAR * min(len(one), len(other))


def _nearest(group: Group, measured: Sequence[tuple[Group, float]]) -> list[float]:
    """Bandwidths of groups of the same size; where there are none, of similar ones."""
    exact = [speed for other, speed in measured if len(other) == len(group)]
    return exact or [speed for other, speed in measured if similar(other, group)]


def upper_median(values: Sequence[float]) -> float:
    """Of an even number the upper of the middle two, so that half of them may be slow."""
    return sorted(values)[len(values) // 2]
