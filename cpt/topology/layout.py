"""`Layout`: how megatron-core deals ranks to groups (tp fastest, then cp, dp, pp), and so which nodes of an allocation talk to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cpt.config.run import RunConfig
from cpt.core.errors import Problem, UserError

type Pairs = Counter[tuple[int, int]]
"""(index of a node, index of a node) -> pairs of ranks on them that talk to each other; both the same inside a node."""


class Group(StrEnum):
    """Who talks. The innermost first, as the groups lie in rank order."""

    tp = "TP"  # ring: parts of each matrix
    cp = "CP"  # ring: parts of each row
    dp = "DP"  # ring over all that hold the same weights (with context parallelism also its ranks): gradients and new weights
    pp = "PP"  # neighbors in a pipeline: activations and their gradients


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Sizes of groups, and ranks on a node. Raises `UserError` for sizes that are none."""

    tp: int = 1
    cp: int = 1
    pp: int = 1
    dp: int = 1
    gpus: int = 8
    virtual: int = 1
    """Model chunks per stage; above 1 the last stage hands on to the first."""

    def __post_init__(self) -> None:
        for name in ("tp", "cp", "pp", "dp", "gpus", "virtual"):
            if getattr(self, name) < 1:
                raise UserError(Problem(where=f"layout.{name}", what=f"is {getattr(self, name)}", why="counts ranks", fix=f"{name}=1"))

    @property
    def world(self) -> int:
        """Ranks."""
        return self.tp * self.cp * self.pp * self.dp

    @property
    def nodes(self) -> int:
        """Nodes that all ranks need; the last may be left partly empty."""
        return -(-self.world // self.gpus)

    @property
    def stage(self) -> int:
        """Ranks of one pipeline stage, over all replicas: neighbors in a pipeline are so far apart in rank order."""
        return self.tp * self.cp * self.dp

    @property
    def cell(self) -> int:
        """Nodes that one replica's stage spans, at least 1; 0 where its ranks do not end with a node, so that nodes are shared unevenly."""
        inner = self.tp * self.cp
        whole = self.stage % self.gpus == 0 and (inner % self.gpus == 0 or self.gpus % inner == 0)
        return max(1, inner // self.gpus) if whole else 0

    @property
    def pipeline_nodes(self) -> int:
        """Nodes that a pipeline runs over: those that should be near each other first of all. Where a node holds several replicas, all of theirs."""
        return self.pp * self.cell if self.cell else min(self.nodes, -(-self.tp * self.cp * self.pp // self.gpus))

    @property
    def on_rails(self) -> bool:
        """Whether neighbors in a pipeline have the same local rank, and so the same rail."""
        return self.pp == 1 or self.stage % self.gpus == 0


def from_config(config: RunConfig) -> Layout:
    """The layout of a valid run."""
    parallel, slurm = config.parallel, config.slurm
    return Layout(
        tp=parallel.tensor_parallel_size,
        cp=parallel.context_parallel_size,
        pp=parallel.pipeline_parallel_size,
        dp=parallel.data_parallel_size(slurm.world_size),
        gpus=slurm.tasks_per_node,
        virtual=parallel.virtual_pipeline_size,
    )


def pairs(layout: Layout) -> dict[Group, Pairs]:
    """Who talks to whom, by the nodes' indices in rank order. A ring of n has n pairs, a pipeline of n stages n - 1 (n with chunks)."""
    return {
        Group.tp: _counted(_ring(1, layout.tp, layout), layout),
        Group.cp: _counted(_ring(layout.tp, layout.cp, layout), layout),
        Group.dp: _counted(_ring(layout.tp, layout.cp * layout.dp, layout), layout),
        Group.pp: _counted(_chain(layout), layout),
    }


def _ring(stride: int, size: int, layout: Layout) -> Iterator[tuple[int, int]]:
    """Rings whose members are `stride` ranks apart."""
    if size == 1:
        return
    span = stride * size
    for rank in range(layout.world):
        yield rank, rank + stride if rank % span < span - stride else rank + stride - span


def _chain(layout: Layout) -> Iterator[tuple[int, int]]:
    """Each stage's ranks with those of the next; with chunks also the last with the first."""
    if layout.pp == 1:
        return
    for rank in range(layout.world if layout.virtual > 1 else layout.world - layout.stage):
        yield rank, (rank + layout.stage) % layout.world


def _counted(ranks: Iterator[tuple[int, int]], layout: Layout) -> Pairs:
    gpus = layout.gpus
    return Counter((one // gpus, other // gpus) for one, other in ranks)
