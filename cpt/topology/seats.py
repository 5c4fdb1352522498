"""`Seats`: which node of an allocation gets which ranks, attempt after attempt, and what that order brought; what SLURM would do by itself is beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cpt.config.run import RunConfig
from cpt.core import units
from cpt.core.artifacts import Artifact
from cpt.topology.fabric import Fabric
from cpt.topology.hops import Hops, hops
from cpt.topology.layout import Group, from_config
from cpt.topology.placement import order, refill
from cpt.topology.traffic import traffic

_WORDS = {Group.pp: "pipeline neighbors", Group.dp: "ring neighbors", Group.cp: "context neighbors", Group.tp: "tensor neighbors"}
"""What is said of a group, in the order of who is asked first: the message that somebody waits for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seats(Artifact):
    """One attempt's nodes in rank order (`seats.json`)."""

    nodes: tuple[str, ...]
    """The first has the first ranks, and so on."""
    spares: tuple[str, ...]
    by_slurm: tuple[str, ...]
    """The nodes that SLURM itself would have taken, in its order."""
    before: Hops
    """Of `by_slurm`."""
    after: Hops
    fabric: Fabric
    """As far as this job reaches."""

    @property
    def ordered(self) -> bool:
        """Whether any rank is elsewhere than SLURM would have put it."""
        return self.nodes != self.by_slurm

    @property
    def line(self) -> str:
        """What the order brought, for a log."""
        said = [f"{_WORDS[group]} {self._change(group)} switches" for group in _WORDS if self.before.kinds[group].max][:1]
        crossing = _arrow(units.size(self.before.spine_bytes), units.size(self.after.spine_bytes))
        what = ", ".join([*said, f"{crossing} over the spine a step"])
        return f"ranks ordered by switches: {what}" if self.ordered else f"SLURM's own order of ranks is as good as any: {what}"

    def _change(self, group: Group) -> str:
        return _arrow(f"{self.before.kinds[group].mean:.2f}", f"{self.after.kinds[group].mean:.2f}")


def seats(nodes: Sequence[str], fabric: Fabric, config: RunConfig, previous: Sequence[str] = ()) -> Seats | None:
    """Healthy nodes, in SLURM's order -> who gets which ranks. None where one switch joins them all, or nobody knows: then SLURM's order is as good as any.

    After an attempt on `previous` its ranks stay where they were, and spares take the places of lost nodes. Raises `UserError` for too few nodes.
    """
    if not previous and len(fabric.leaves(nodes)) < 2:
        return None
    layout, sizes = from_config(config), traffic(config)
    chosen = refill(previous, nodes, fabric, layout) if previous else order(nodes, fabric, layout, sizes)
    by_slurm, own = list(nodes[: layout.nodes]), chosen[: layout.nodes]
    return Seats(
        nodes=tuple(own),
        spares=tuple(node for node in nodes if node not in own),
        by_slurm=tuple(by_slurm),
        before=hops(by_slurm, fabric, layout, sizes),
        after=hops(own, fabric, layout, sizes),
        fabric=Fabric(kind=fabric.kind, paths={node: fabric.path(node) for node in nodes}, block_size=fabric.block_size),
    )


def _arrow(before: str, after: str) -> str:
    """`2.73 -> 1.00`, `6.34 -> 2.16 TiB`; one of them when nothing changed."""
    if before == after:
        return after
    (number, _, unit), other = before.partition(" "), after.partition(" ")[2]
    return f"{number if unit == other else before} -> {after}"
