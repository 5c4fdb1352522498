"""Pictures of wires: a node with its GPUs, NVLink and adapters; and where the ranks of a run lie in the fabric, before and after they were ordered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

from cpt.report.canvas import AGAIN, GENERAL, GOOD, INK, LINE, LOST, SOFT, WIDTH, Canvas
from cpt.topology.adapters import ETHERNET, INFINIBAND
from cpt.topology.fabric import Fabric
from cpt.topology.hops import Hops, hops
from cpt.topology.layout import Group, Layout
from cpt.topology.machine import Machine, Nic, Role

type By = Literal["pipeline", "stage"]

_PIPELINES = (
    "#2459b3", "#c2500c", "#2e8b62", "#e8b04a", "#7a6bc4", "#d64545", "#5d9bd6", "#8f2d0a", "#8fb8a8", "#eeb36d", "#4a5b7c", "#c97fb0", "#9fc131", "#3aa6a0", "#b9a28a",
    "#a79bd8",
)  # fmt: skip
_STAGES = ("#16336b", "#2459b3", "#5d9bd6", "#a9cbe8", "#2e8b62", "#8fc9ab", "#c2500c", "#eeb36d")
_SPARE, _OTHER = "#9aa4b0", "#f4f6f8"
_ROLES = {Role.rail: GENERAL, Role.storage: "#8d97a5", Role.down: LOST}
_DARK = ("#2459b3", "#c2500c", "#2e8b62", "#7a6bc4", "#d64545", "#8f2d0a", "#4a5b7c", "#16336b", "#5d9bd6", "#3aa6a0", "#c97fb0", "#9aa4b0")
_NAMED = 16
"""Leaves that have room for their names."""
_NUMBERED = 160
"""Nodes that have room for a number."""
_NODE_WIDTH = 16.0


def node(machine: Machine) -> bytes:
    """One node: NVLink above its GPUs, each GPU's rail below it, other adapters apart; NUMA halves shaded."""
    gpus = max(1, len(machine.gpus))
    step = _NODE_WIDTH / gpus
    others = [nic for nic in machine.nics if nic.role is not Role.rail]
    with Canvas(3.2 + (0.75 if others else 0)) as canvas:
        (axes,) = canvas.axes()
        _blank(axes, (-0.2, _NODE_WIDTH + 0.2), (-2.7 if others else -0.9, 6.4))
        _halves(axes, machine, step)
        _nvlink(axes, machine, step)
        for gpu in machine.gpus:
            _box(axes, (gpu.index * step + 0.15, 2.8), (step - 0.3, 1.1), GOOD, f"GPU {gpu.index}")
        _rail_row(axes, machine, step)
        _others_row(axes, others)
        return canvas.png()


def fabric(orders: Mapping[str, Sequence[str]], wires: Fabric, layout: Layout, by: By = "pipeline") -> bytes:
    """A panel per order (`{"by name": ..., "ordered": ...}`): switches, leaves, and a square per node. Grey is spare, empty is not ours.

    Each panel says what talks over the spine, and shows the way of one pipeline as a line.
    """
    leaves = wires.leaves({*wires.paths, *(name for order in orders.values() for name in order)})
    sketch = _Sketch(leaves=leaves)
    with Canvas(sketch.inches * len(orders) + 0.55) as canvas:
        for number, (name, order) in enumerate(orders.items()):
            axes = canvas.figure.add_subplot(len(orders), 1, number + 1)
            places = _fabric_panel(axes, sketch)
            _squares(axes, places, order, layout, by)
            _way(axes, places, order, layout)
            axes.set_title(f"{name}: {_crossings(hops(order, wires, layout))}", fontsize=10.5)
        canvas.figure.legend(handles=list(_legend(orders, wires, layout, by)), loc="outside lower center", ncols=6)
        return canvas.png()


def _crossings(found: Hops) -> str:
    words = {Group.pp: "pipeline neighbors", Group.dp: "ring neighbors", Group.cp: "context neighbors", Group.tp: "tensor neighbors"}
    said = [
        f"{kind.spine:,} of {kind.pairs:,} {words[group]}"
        for group in words
        if (kind := found.kinds[group]).pairs and (kind.spine or group in (Group.pp, Group.dp))
    ]
    return (" and ".join(said) + " talk over the spine") if said else "nobody talks over the network"


def _blank(axes: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    axes.set_xlim(*across)
    axes.set_ylim(*up)
    axes.axis("off")


def _box(axes: Axes, corner: tuple[float, float], size: tuple[float, float], color: str, text: str) -> None:
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.12", facecolor=color, edgecolor="white", linewidth=1))
    axes.text(
        corner[0] + size[0] / 2,
        corner[1] + size[1] / 2,
        text,
        ha="center",
        va="center",
        color=INK if color == AGAIN else "white",
        fontsize=8.5,
        fontweight="bold",
    )


def _halves(axes: Axes, machine: Machine, step: float) -> None:
    """A shade behind each run of GPUs on one NUMA node."""
    start = 0
    for index, gpu in enumerate(machine.gpus):
        if index + 1 < len(machine.gpus) and machine.gpus[index + 1].numa == gpu.numa:
            continue
        width = (index + 1 - start) * step - 0.1
        axes.add_patch(FancyBboxPatch((start * step + 0.05, -0.7), width, 6.9, boxstyle="round,pad=0,rounding_size=0.15", facecolor="#f1f4f8", edgecolor=LINE))
        name = f"NUMA node {gpu.numa}" if gpu.numa is not None else "NUMA node not known"
        axes.text(start * step + 0.3, 5.75, f"{name}   CPUs {gpu.cpus}" if gpu.cpus else name, va="center", fontsize=8.5, color=SOFT)
        start = index + 1


def _nvlink(axes: Axes, machine: Machine, step: float) -> None:
    """A bar per group of GPUs that reach each other."""
    for group in machine.domains:
        if len(group) < 2:
            continue
        first, last = min(group) * step + 0.15, (max(group) + 1) * step - 0.15
        _box(axes, (first, 4.65), (last - first, 0.62), AGAIN, f"NVLink, {machine.nvlinks} links between any two")
        for gpu in group:
            axes.plot([(gpu + 0.5) * step] * 2, [3.9, 4.65], color=AGAIN, linewidth=3, solid_capstyle="butt")


def _rail_row(axes: Axes, machine: Machine, step: float) -> None:
    """Each rail below the GPUs that use it; where nobody knows which, in a row with no lines."""
    rails = machine.having(Role.rail)
    users = {nic.name: [gpu.index for gpu in machine.gpus if gpu.rail == nic.name] for nic in rails}
    free = [nic for nic in rails if not users[nic.name]]
    for nic in rails:
        if mine := users[nic.name]:
            center = (sum(mine) / len(mine) + 0.5) * step
            for gpu in mine:
                axes.plot([(gpu + 0.5) * step, center], [2.8, 1.15], color=GENERAL, linewidth=1.8)
            _box(axes, (center - step / 2 + 0.15, 0.05), (step - 0.3, 1.1), _ROLES[Role.rail], f"{nic.name}\n{_speed(nic)}")
    for place, nic in enumerate(free):
        wide = _NODE_WIDTH / len(free)
        _box(axes, (place * wide + 0.15, 0.05), (wide - 0.3, 1.1), _ROLES[Role.rail], f"{nic.name}\n{_speed(nic)}")
    if free:
        axes.text(_NODE_WIDTH / 2, 1.95, "which adapter is near which GPU is hidden", ha="center", va="center", fontsize=9, color=SOFT)
    if not rails:
        axes.text(_NODE_WIDTH / 2, 0.6, "no RDMA adapter that is up", ha="center", va="center", fontsize=9, color=SOFT)


def _others_row(axes: Axes, others: Sequence[Nic]) -> None:
    wide = min(_NODE_WIDTH / max(1, len(others)), 4.0)  # a few adapters do not fill the row
    for place, nic in enumerate(others):
        _box(axes, (place * wide + 0.15, -2.05), (wide - 0.3, 1.05), _ROLES[nic.role], f"{nic.name}\n{_speed(nic, 'Ethernet')}")
        axes.text((place + 0.5) * wide, -2.4, nic.why, ha="center", va="center", fontsize=7.5 if len(others) < 6 else 6, color=SOFT)


def _speed(nic: Nic, ethernet: str = "RoCE") -> str:
    layer = {INFINIBAND: "IB", ETHERNET: ethernet}.get(nic.port.link_layer, "")
    return f"{layer} {nic.port.rate:g} Gb/s".strip() if nic.port.rate else layer or "speed not known"


@dataclass(frozen=True, kw_only=True)
class _Sketch:
    """Sizes of a panel, in squares of one node."""

    leaves: Mapping[tuple[str, ...], list[str]]

    @property
    def most(self) -> int:
        return max((len(found) for found in self.leaves.values()), default=1)

    @property
    def side(self) -> int:
        """Squares in a row of a leaf, which is twice as wide as high."""
        return math.ceil(math.sqrt(2 * self.most))

    @property
    def gap(self) -> float:
        return max(0.6, self.side * 0.18)

    @property
    def depth(self) -> int:
        return max((len(path) for path in self.leaves), default=0)

    @property
    def bar(self) -> float:
        return max(0.9, 0.12 * self.side)

    @property
    def width(self) -> float:
        """A lone leaf does not fill the page."""
        return max(len(self.leaves) * (self.side + self.gap), 34.0)

    @property
    def height(self) -> float:
        return math.ceil(self.most / self.side) + 0.6 + self.depth * 1.6 * self.bar

    @property
    def square(self) -> bool:
        """Many leaves are drawn narrow."""
        return len(self.leaves) <= _NAMED

    @property
    def inches(self) -> float:
        return 0.5 + (WIDTH * self.height / self.width if self.square else 0.3 * self.height / self.bar)


def _fabric_panel(axes: Axes, sketch: _Sketch) -> dict[str, tuple[float, float]]:
    """Leaves from left to right, what is above them as bars. Returns node -> (x, y), in squares of size 1."""
    side, gap, bar, depth = sketch.side, sketch.gap, sketch.bar, sketch.depth
    _blank(axes, (-gap, sketch.width), (depth * 1.6 * bar + 0.3 - sketch.height, depth * 1.6 * bar + 0.3))
    axes.set_aspect("equal" if sketch.square else "auto", anchor="W")
    for level in range(depth):
        _bars(axes, list(sketch.leaves), level, ((depth - 1 - level) * 1.6 * bar + 0.35 * bar, bar), (side, gap))
    every = enumerate(sketch.leaves.values())
    return {name: (index * (side + gap) + place % side, -1.0 - place // side) for index, found in every for place, name in enumerate(found)}


def _bars(axes: Axes, paths: Sequence[tuple[str, ...]], level: int, span: tuple[float, float], leaf: tuple[float, float]) -> None:
    """One bar over all leaves with the same way down to this level."""
    (bottom, height), (side, gap), start = span, leaf, 0
    for index, path in enumerate(paths):
        if index + 1 < len(paths) and paths[index + 1][: level + 1] == path[: level + 1]:
            continue
        left, right = start * (side + gap), index * (side + gap) + side
        start = index + 1
        if len(path) <= level:
            continue
        lowest = level == len(path) - 1
        axes.add_patch(Rectangle((left, bottom), right - left, height, facecolor="#dfe5ec" if lowest else SOFT, edgecolor="none"))
        if len(paths) <= _NAMED or not lowest:
            axes.text((left + right) / 2, bottom + height / 2, path[level], ha="center", va="center", fontsize=7.5, color=INK if lowest else "white")


def _squares(axes: Axes, places: Mapping[str, tuple[float, float]], order: Sequence[str], layout: Layout, by: By) -> None:
    rank = {name: index for index, name in enumerate(order)}
    for name, (x, y) in places.items():
        color, text = _look(rank.get(name), layout, by)
        axes.add_patch(Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, facecolor=color, edgecolor=LINE if color == _OTHER else "none", linewidth=0.6))
        if len(places) <= _NUMBERED:
            axes.text(x + 0.5, y + 0.47, text, zorder=7, ha="center", va="center", fontsize=6.5, color="white" if color in _DARK else INK)


def _look(index: int | None, layout: Layout, by: By) -> tuple[str, str]:
    if index is None:
        return _OTHER, ""
    if index >= layout.nodes:
        return _SPARE, "s"
    stage, pipeline = _seat(index, layout)
    if by == "stage":
        return _STAGES[stage % len(_STAGES)], str(stage)
    return _PIPELINES[pipeline % len(_PIPELINES)], str(pipeline)


def _seat(index: int, layout: Layout) -> tuple[int, int]:
    """(stage, pipeline) of a node's first rank; several replicas on one node count as one pipeline."""
    rank = index * layout.gpus
    stage, inside = divmod(rank, layout.stage)
    return stage, inside // max(layout.gpus, layout.tp * layout.cp)


def _way(axes: Axes, places: Mapping[str, tuple[float, float]], order: Sequence[str], layout: Layout) -> None:
    """Through the nodes of pipeline 0, stage by stage."""
    seats = {_seat(index, layout): index for index in range(min(layout.nodes, len(order)) - 1, -1, -1)}
    way = [places[order[seats[stage, 0]]] for stage in range(layout.pp) if (stage, 0) in seats]
    for x, y in way if len(places) <= _NUMBERED else ():
        axes.add_patch(Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, facecolor="none", edgecolor=INK, linewidth=1.6, zorder=6))
    axes.plot([x + 0.5 for x, _ in way], [y + 0.5 for _, y in way], color=INK, linewidth=1.4, alpha=0.75, zorder=5)


def _legend(orders: Mapping[str, Sequence[str]], wires: Fabric, layout: Layout, by: By) -> Iterator[Patch]:
    if by == "stage":
        yield from (Patch(color=_STAGES[stage % len(_STAGES)], label=f"stage {stage}") for stage in range(min(layout.pp, len(_STAGES))))
    else:
        yield Patch(color=_PIPELINES[0], label="a color and number per pipeline")
    if any(len(order) > layout.nodes for order in orders.values()):
        yield Patch(color=_SPARE, label="spare")
    if any(wires.paths.keys() - set(order) for order in orders.values()):
        yield Patch(facecolor=_OTHER, edgecolor=LINE, label="not in this job")
    yield Patch(color=INK, label="the way of pipeline 0")
