"""How far the groups of a run have to talk in an order of nodes: switches passed, and what crosses a spine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cpt.core import units
from cpt.core.artifacts import Artifact
from cpt.core.errors import Problem, UserError
from cpt.topology.fabric import Fabric, Path, switches_between
from cpt.topology.layout import Group, Layout, Pairs, pairs
from cpt.topology.traffic import Traffic


@dataclass(frozen=True, kw_only=True, slots=True)
class KindHops(Artifact):
    """One kind of group. A hop is a switch passed: 0 inside a node, 1 on one leaf, 3 leaf-spine-leaf, 5 over a core."""

    pairs: int
    """Pairs of ranks that talk to each other."""
    mean: float
    max: int
    total: int
    spine: int
    """Pairs whose messages leave their leaf: those that an oversubscribed spine slows, and that meet other jobs there."""
    spine_bytes: float
    """What these pairs send a step, one way; 0 when no traffic was given."""

    @property
    def spine_share(self) -> float:
        """0 of a kind that has no pairs."""
        return self.spine / self.pairs if self.pairs else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Hops(Artifact):
    """All kinds of groups of one order."""

    kinds: dict[Group, KindHops]

    @property
    def spine_bytes(self) -> float:
        """Bytes a step over the spine; the smaller, the less a busy or oversubscribed spine matters."""
        return sum(kind.spine_bytes for kind in self.kinds.values())


def hops(order: Sequence[str], fabric: Fabric, layout: Layout, traffic: Traffic | None = None) -> Hops:
    """Ranks 0, 1, ... on `order`'s nodes one after the other; what is behind the layout's last node is spare. Raises `UserError` for too few nodes."""
    return counted(order, fabric, layout, pairs(layout), traffic)


def counted(order: Sequence[str], fabric: Fabric, layout: Layout, talking: Mapping[Group, Pairs], traffic: Traffic | None) -> Hops:
    """`hops` with `pairs` at hand, for many orders of one layout."""
    if len(order) < layout.nodes:
        raise too_few(len(order), layout)
    ways = [fabric.path(node) for node in order[: layout.nodes]]
    known: dict[tuple[Path, Path], int] = {}
    return Hops(kinds={group: _kind(found, ways, known, traffic.of(group) if traffic else 0.0) for group, found in talking.items()})


def rows(orders: Mapping[str, Hops]) -> list[tuple[str, ...]]:
    """For people, with a head: a row per order and kind of group that has pairs; bytes only where they are known."""
    sized = any(found.spine_bytes for found in orders.values())
    head = ("order", "group", "mean hops", "max", "total", "pairs over the spine", *(["bytes a step over it"] if sized else []))
    return [head, *(_row(name, group, kind, sized) for name, found in orders.items() for group, kind in found.kinds.items() if kind.pairs)]


def too_few(nodes: int, layout: Layout) -> UserError:
    """What is said when an allocation is too small for a layout."""
    why = f"TP{layout.tp} x CP{layout.cp} x PP{layout.pp} x DP{layout.dp} on {layout.gpus} GPUs a node needs {layout.nodes}"
    return UserError(Problem(where="nodes", what=f"are {nodes}", why=why, fix=f"slurm.nodes={layout.nodes}"))


def _kind(talking: Pairs, ways: Sequence[Path], known: dict[tuple[Path, Path], int], size: float) -> KindHops:
    total = most = spine = 0
    for (one, other), count in talking.items():
        passed = 0
        if one != other:
            way = (ways[one], ways[other])
            passed = known[way] if way in known else known.setdefault(way, switches_between(*way))
        total += passed * count
        most = max(most, passed)
        spine += count if passed > 1 else 0
    number = talking.total()
    return KindHops(pairs=number, mean=total / number if number else 0.0, max=most, total=total, spine=spine, spine_bytes=spine * size)


def _row(name: str, group: Group, kind: KindHops, sized: bool) -> tuple[str, ...]:
    crossing = f"{kind.spine:,} of {kind.pairs:,} ({kind.spine_share:.0%})"
    return (name, group.value, f"{kind.mean:.2f}", str(kind.max), f"{kind.total:,}", crossing, *([units.size(kind.spine_bytes)] if sized else []))
