"""`Fabric`: which switches or blocks lie between two nodes, as SLURM tells it, and how many switches a message passes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cpt.core.artifacts import Artifact
from cpt.core.errors import Problem, UserError
from cpt.topology.names import expand, natural

type Path = tuple[str, ...]
"""Names from the top down to what a node hangs on: `("spine", "leaf3")`; empty where nothing is known."""


class Kind(StrEnum):
    """SLURM's topology plugins."""

    tree = "tree"  # leaf switches below spines
    block = "block"  # racks within which everything is near
    flat = "flat"  # nothing said: as if one switch joined all nodes


@dataclass(frozen=True, kw_only=True, slots=True)
class Fabric(Artifact):
    """Way of each node up to the top."""

    kind: Kind = Kind.flat
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    block_size: int = 0
    """Nodes in a block, as SLURM says; 0 where it does not."""

    def path(self, node: str) -> Path:
        """Empty for a node that SLURM's topology lacks."""
        return self.paths.get(node, ())

    def leaf(self, node: str) -> str:
        """The switch or block that a node hangs on; empty for one that is not known."""
        return self.path(node)[-1] if self.path(node) else ""

    def leaves(self, nodes: Iterable[str] | None = None) -> dict[Path, list[str]]:
        """What each leaf holds of `nodes` (default: all), leaves of one pod next to each other, nodes as people count. Unknown nodes are the last leaf."""
        found: dict[Path, list[str]] = {}
        for node in sorted(self.paths if nodes is None else nodes, key=natural):
            found.setdefault(self.path(node), []).append(node)
        return dict(sorted(found.items(), key=lambda item: (not item[0], [natural(name) for name in item[0]])))


def switches_between(one: Path, other: Path) -> int:
    """Switches that a message passes between two nodes on these paths: 1 on the same leaf, 3 over a spine, 5 over a core.

    Nodes that are not known are as far from the others as if a switch above all were between them.
    """
    common = 0
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            break
        common += 1
    return len(one) + len(other) - 2 * common + 1


def from_scontrol(text: str) -> Fabric | None:
    """`scontrol show topology`, of topology/tree or topology/block. None when it holds neither (topology/flat, or nothing configured).

    Raises `UserError` for switches that are no tree.
    """
    lines = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in text.splitlines()]
    if switches := {line["SwitchName"]: line for line in lines if "SwitchName" in line}:
        return _tree(switches)
    if blocks := [line for line in lines if "BlockName" in line]:
        return _blocks(blocks, [line for line in lines if "AggregatedBlock" in line])
    return None


def from_addresses(addresses: Mapping[str, tuple[str, str]]) -> Fabric | None:
    """Node -> (SLURM_TOPOLOGY_ADDR, SLURM_TOPOLOGY_ADDR_PATTERN) as its tasks see them: `spine.leaf3.node17`, `switch.switch.node`. None when no address has a switch."""
    paths, kinds = {}, set()
    for node, (address, pattern) in addresses.items():
        words = pattern.split(".")
        names = address.split(".", len(words) - 1)  # a node's name may have dots, too
        if len(names) != len(words) or words[-1:] != ["node"]:
            what = f"{address!r} with pattern {pattern!r}"
            raise UserError(Problem(where=node, what=what, why="they do not fit together", fix="copy both variables from the same task"))
        paths[node] = tuple(names[:-1])
        kinds.update(words[:-1])
    if not kinds:
        return None
    return Fabric(kind=Kind.block if kinds == {"block"} else Kind.tree, paths=paths)


def _tree(switches: Mapping[str, Mapping[str, str]]) -> Fabric:
    parents: dict[str, str] = {}
    for name, line in switches.items():
        for child in expand(line.get("Switches", "")):
            parents.setdefault(child, name)  # several spines over one leaf are one hop up, whichever is taken
    paths: dict[str, Path] = {}
    for name, line in switches.items():
        if "Switches" not in line:
            way = _up(name, parents)
            for node in expand(line.get("Nodes", "")):
                paths.setdefault(node, way)
    return Fabric(kind=Kind.tree, paths=paths)


def _up(leaf: str, parents: Mapping[str, str]) -> Path:
    way = [leaf]
    while (parent := parents.get(way[-1])) is not None:
        if parent in way:
            raise UserError(Problem(where=f"SwitchName={leaf}", what=f"lies below itself ({parent})", why="switches form a tree", fix="correct topology.conf"))
        way.append(parent)
    return tuple(reversed(way))


def _blocks(blocks: Sequence[Mapping[str, str]], aggregated: Sequence[Mapping[str, str]]) -> Fabric:
    """Aggregated blocks of several sizes lie in each other, the largest at the top."""
    above: dict[str, list[tuple[int, str]]] = {}
    for line in aggregated:
        members = expand(line["AggregatedBlock"])
        for name in members:
            above.setdefault(name, []).append((-len(members), line["AggregatedBlock"]))
    paths: dict[str, Path] = {}
    for line in blocks:
        way = (*(name for _, name in sorted(above.get(line["BlockName"], ()))), line["BlockName"])
        for node in expand(line.get("Nodes", "")):
            paths.setdefault(node, way)
    sizes = {int(line["BlockSize"]) for line in blocks if line.get("BlockSize", "").isdecimal()}
    return Fabric(kind=Kind.block, paths=paths, block_size=min(sizes, default=0))
