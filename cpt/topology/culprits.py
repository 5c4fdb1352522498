"""What can make a collective slow, and what a search for it says: values of `cpt.topology.bisect`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum

type Group = tuple[str, ...]
"""Nodes that are measured together; a node alone is measured between its own ranks."""

type Search[T] = Generator[list[Group], Sequence[float], T]
"""Asks for disjoint groups, is sent their bus bandwidths (bytes a second, 0 of one that failed) in the same order."""


class Kind(StrEnum):
    """What can be slow."""

    inside = "inside"  # a node, between its own ranks
    node = "node"  # a node, to every other
    link = "link"  # two nodes with each other, both fast with others
    joint = "joint"  # two groups with each other, both fast inside
    unclear = "unclear"  # no node known to be good is left to tell


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One culprit, with what it reached and what it should, in bytes a second."""

    kind: Kind
    nodes: Group
    other: Group = ()
    """The other side of a join."""
    bandwidth: float
    expected: float

    @property
    def exclude(self) -> Group:
        """Nodes without which the rest should be fast; of a link one end is enough, for a join no node helps."""
        return {Kind.joint: (), Kind.unclear: (), Kind.link: self.nodes[-1:]}.get(self.kind, self.nodes)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One group in one round; `expected` is what it was judged by, 0 when there was nothing."""

    nodes: Group
    bandwidth: float
    expected: float
    slow: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a search found, and every round of it."""

    findings: tuple[Finding, ...]
    rounds: tuple[tuple[Measured, ...], ...]
