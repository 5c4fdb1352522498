"""Which node gets which ranks. In megatron-core's order stages are the slowest: with TP8 PP4 DP15 on 60 nodes, the four nodes of a pipeline are 15 apart.

An order is a table, a row per stage and a column per pipeline, read row by row. `order` fills it with pieces of columns, leaf by leaf: whole columns keep
pipelines inside a leaf and let rings of data parallelism cross at its border; single rows do the opposite; heights in between do some of both. It tries all
heights, with spares taken where they break a piece, counts what each costs, and keeps the cheapest; never anything worse than the order that it was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from cpt.core.errors import Problem, UserError
from cpt.topology.fabric import Fabric, Path, switches_between
from cpt.topology.hops import Hops, counted, too_few
from cpt.topology.layout import Group, Layout, Pairs, pairs
from cpt.topology.names import natural
from cpt.topology.traffic import Traffic

type Piece = tuple[Path, list[str]]
"""Nodes of one leaf."""


def order(nodes: Sequence[str], fabric: Fabric, layout: Layout, traffic: Traffic | None = None) -> list[str]:
    """A permutation of `nodes`: first those for ranks, in rank order, then spares. The same for the same input.

    With `traffic`, what costs least in bytes times switches passed. Without, context parallelism first, then pipelines, whose messages a micro-batch
    waits for, then rings of data parallelism, which overlap with computation. Raises `UserError` for too few nodes, or one that is named twice.
    """
    if len(nodes) < layout.nodes:
        raise too_few(len(nodes), layout)
    if len(set(nodes)) < len(nodes):
        twice = sorted({node for node in nodes if nodes.count(node) > 1}, key=natural)
        raise UserError(Problem(where="nodes", what=f"name {' '.join(twice)} twice", why="a node holds one set of ranks", fix="name each node once"))
    talking = pairs(layout)
    options = [list(nodes), by_leaf(nodes, fabric), *_tables(nodes, fabric, layout)]
    costs = [_cost(counted(option, fabric, layout, talking, traffic), traffic) for option in options]
    return options[costs.index(min(costs))]


def by_name(nodes: Sequence[str]) -> list[str]:
    """As SLURM hands out ranks by itself: as people count."""
    return sorted(nodes, key=natural)


def by_leaf(nodes: Sequence[str], fabric: Fabric) -> list[str]:
    """Leaf after leaf, without regard to what the ranks are for."""
    return [node for found in fabric.leaves(nodes).values() for node in found]


def refill(previous: Sequence[str], nodes: Sequence[str], fabric: Fabric, layout: Layout) -> list[str]:
    """`previous` with its lost nodes replaced, nothing else moved: what lies on a node's disk stays with its ranks.

    Each gap gets the spare that is nearest to the nodes that its ranks talk to most. Raises `UserError` for too few nodes.
    """
    if len(nodes) < layout.nodes:
        raise too_few(len(nodes), layout)
    alive = set(nodes)
    seats: list[str | None] = [node if node in alive else None for node in previous[: layout.nodes]]
    seats += [None] * (layout.nodes - len(seats))
    spares = sorted(alive - set(seats), key=natural)
    neighbors = _neighbors(pairs(layout))
    for gap in [index for index, node in enumerate(seats) if node is None]:
        ways = [(fabric.path(seats[other] or ""), count) for other, count in neighbors.get(gap, {}).items() if seats[other]]
        best = min(spares, key=lambda spare: sum(count * switches_between(fabric.path(spare), way) for way, count in ways))
        spares.remove(best)
        seats[gap] = best
    return [*(seat for seat in seats if seat), *spares]


def _tables(nodes: Sequence[str], fabric: Fabric, layout: Layout) -> Iterator[list[str]]:
    """An order per height of pieces, cut at leaves' borders or running over them. None where nodes do not hold whole parts of stages."""
    if not layout.cell or layout.pp == 1:
        return
    leaves = fabric.leaves(nodes)
    columns = layout.stage // layout.gpus // layout.cell
    for height in (height for height in range(layout.pp, 0, -1) if layout.pp % height == 0):
        size = height * layout.cell
        used = _without_spares(leaves, len(nodes) - layout.nodes, size)
        running = iter([node for found in used.values() for node in found])
        pieces = [list(islice(running, size)) for _ in range(layout.nodes // size)]
        for option in (_packed(used, size), pieces):
            table = _table(option, columns, layout)
            chosen = set(table)
            yield table + [node for node in by_leaf(nodes, fabric) if node not in chosen]


def _table(pieces: Sequence[Sequence[str]], columns: int, layout: Layout) -> list[str]:
    """Bands of pieces below each other; a band's rows, column by column."""
    bands = [pieces[start : start + columns] for start in range(0, len(pieces), columns)]
    rows = [[piece[row * layout.cell : (row + 1) * layout.cell] for piece in band] for band in bands for row in range(len(band[0]) // layout.cell)]
    return [node for row in rows for part in row for node in part]


def _without_spares(leaves: Mapping[Path, list[str]], spares: int, size: int) -> dict[Path, list[str]]:
    """Spares are those that would be left over of a leaf anyway, from the leaf with the fewest such first."""
    kept = {path: list(found) for path, found in leaves.items()}
    while spares:
        path = min((path for path in kept if kept[path]), key=lambda path: (len(kept[path]) % size or size, len(kept[path])))
        take = min(spares, len(kept[path]) % size or size)
        del kept[path][-take:]
        spares -= take
    return {path: found for path, found in kept.items() if found}


def _packed(leaves: Mapping[Path, list[str]], size: int) -> list[list[str]]:
    """Whole pieces of each leaf, and pieces of what is left over, from as few leaves as possible; each stands where its first node does."""
    place = {path: index for index, path in enumerate(leaves)}
    pieces: list[tuple[int, list[str]]] = []
    rest: list[Piece] = []
    for path, found in leaves.items():
        whole = len(found) // size * size
        pieces += [(place[path], found[start : start + size]) for start in range(0, whole, size)]
        if whole < len(found):
            rest.append((path, found[whole:]))
    while rest:
        path, piece = rest.pop(0)
        while len(piece) < size and rest:
            piece = piece + _fitting(rest, path, size - len(piece))
        pieces.append((place[path], piece))
    return [piece for _, piece in sorted(pieces, key=lambda item: item[0])]


def _fitting(rest: list[Piece], path: Path, room: int) -> list[str]:
    """The largest leftover that fits, of the nearest leaf that has one; where none fits, a part of the smallest. It is taken out of `rest`."""
    fits = [index for index, (_, found) in enumerate(rest) if len(found) <= room]
    if fits:
        best = min(fits, key=lambda index: (switches_between(path, rest[index][0]), -len(rest[index][1])))
        return rest.pop(best)[1]
    best = min(range(len(rest)), key=lambda index: (switches_between(path, rest[index][0]), len(rest[index][1])))
    way, found = rest[best]
    rest[best] = (way, found[room:])
    return found[:room]


def _cost(found: Hops, traffic: Traffic | None) -> tuple[float, ...]:
    if traffic:
        return (sum(traffic.of(group) * kind.total for group, kind in found.kinds.items()),)
    return tuple(float(found.kinds[group].total) for group in (Group.tp, Group.cp, Group.pp, Group.dp))


def _neighbors(talking: Mapping[Group, Pairs]) -> dict[int, dict[int, int]]:
    """Index of a node -> indices of those that it talks to, with how many pairs of ranks."""
    found: dict[int, dict[int, int]] = {}
    for one, other, count in ((one, other, count) for group in talking.values() for (one, other), count in group.items() if one != other):
        for mine, yours in ((one, other), (other, one)):
            found.setdefault(mine, {})[yours] = found.get(mine, {}).get(yours, 0) + count
    return found
