"""What to ask SLURM for, so that an allocation is compact: `--switches` of a tree, `--segment` of blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cpt.config.running import minutes
from cpt.core.errors import Problem, UserError
from cpt.topology.fabric import Fabric, Kind

SEGMENT = (24, 5)
"""The first SLURM with `--segment` (its changelog of 24.05.0rc1); topology/block itself came with 23.11."""
LONG_SEGMENT = (25, 5)
"""From here a segment may be larger than a block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """Options of sbatch, by long name; none where asking would bring nothing. `why` says so either way."""

    options: dict[str, str]
    why: str


def hint(fabric: Fabric, nodes: int, version: tuple[int, ...], pipeline_nodes: int = 1, wait: str = "1:00:00", usable: Iterable[str] | None = None) -> Hint:
    """For a job of `nodes` nodes, spares included, on a SLURM of this version, (22, 5, 8).

    `wait` is how long SLURM may hold out for a compact allocation, as it writes times; a site may allow less (`max_switch_wait`). `usable` are the nodes
    that the job may get, by default all. With topology/block SLURM takes a range of nodes (`62-64`) only where its TopologyParam has TopoMaxSizeUnroll
    (24.11): ask for one number there. Raises `UserError` when that many nodes are not there.
    """
    if not minutes(wait) > 0:
        raise UserError(Problem(where="wait", what=repr(wait), why="is not a time as SLURM writes it", fix="wait=1:00:00"))
    sizes = sorted((len(found) for path, found in fabric.leaves(usable).items() if path), reverse=True)
    if fabric.kind is Kind.flat or not sizes:
        return Hint(options={}, why="SLURM knows no topology here")
    if sum(sizes) < nodes:
        raise UserError(Problem(where="slurm.nodes", what=f"is {nodes}", why=f"the fabric has {sum(sizes)}", fix=f"slurm.nodes={sum(sizes)}"))
    return _switches(sizes, nodes, wait) if fabric.kind is Kind.tree else _segment(fabric.block_size or sizes[-1], nodes, version, pipeline_nodes)


def fewest(sizes: Iterable[int], nodes: int) -> int:
    """Leaves that hold `nodes` when each gives all that it has, the largest first."""
    held = count = 0
    for size in sorted(sizes, reverse=True):
        if held >= nodes:
            break
        held, count = held + size, count + 1
    return count


def _switches(sizes: list[int], nodes: int, wait: str) -> Hint:
    count = fewest(sizes, nodes)
    if count == len(sizes):
        return Hint(options={}, why=f"{nodes} nodes need all {count} leaf switches")
    return Hint(
        options={"switches": f"{count}@{wait}"}, why=f"{nodes} nodes fit on {count} of {len(sizes)} leaf switches; after {wait} SLURM takes what there is"
    )


def _segment(block: int, nodes: int, version: tuple[int, ...], pipeline: int) -> Hint:
    """A pipeline's nodes are what must not be torn apart; asking for more would only wait longer. SLURM wants segments that divide the job."""
    if version < SEGMENT:
        return Hint(options={}, why=f"SLURM {'.'.join(map(str, version))} has no --segment (24.05 has)")
    most = nodes if version >= LONG_SEGMENT else block
    if 1 < pipeline <= most and nodes % pipeline == 0:
        return Hint(options={"segment": str(pipeline)}, why=f"every {pipeline} nodes, a pipeline, lie within one block of {block}")
    size = max(size for size in range(1, min(block, nodes) + 1) if nodes % size == 0)
    if size == 1:
        return Hint(options={}, why=f"no part of {nodes} nodes fits evenly into blocks of {block}")
    return Hint(options={"segment": str(size)}, why=f"{nodes} nodes in parts of {size}, each within one block of {block}")
