"""How pictures look: one size, few colors, light grid. Figures are drawn without pyplot, so there is no global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, SOFT, LINE = "#1c2430", "#5b6675", "#e3e7ec"
DOMAIN, GENERAL, LOST, AGAIN, GOOD = "#c2500c", "#2459b3", "#d64545", "#e8b04a", "#2e8b62"
GROUP_COLORS = {"domain": DOMAIN, "general": GENERAL}
_SHADES = {
    "domain": ["#c2500c", "#e0893f", "#8f2d0a", "#eeb36d"],
    "general": ["#2459b3", "#5d9bd6", "#2e8b82", "#7a6bc4", "#8fb8a8", "#4a5b7c"],
}
WIDTH = 9.6
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#c9d1da",
    "axes.labelcolor": SOFT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}
POINTS = 2000


class Canvas:
    """A figure of the page's width; `with` applies the style, `png` gives the bytes."""

    def __init__(self, height: float) -> None:
        self._height = height
        self._style = rc_context(_STYLE)  # type: ignore[arg-type]

    def __enter__(self) -> Canvas:
        self._style.__enter__()
        self.figure = Figure(figsize=(WIDTH, self._height), layout="constrained", dpi=150)
        return self

    def __exit__(self, *error: object) -> None:
        self._style.__exit__(None, None, None)

    def axes(self, columns: int = 1) -> list[Axes]:
        """`columns` panels side by side."""
        return [self.figure.add_subplot(1, columns, index + 1) for index in range(columns)]

    def png(self) -> bytes:
        """Call inside `with`."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        return buffer.getvalue()


def source_colors(groups: Mapping[str, str]) -> dict[str, str]:
    """Source -> color: warm for the domain, cool for general replay."""
    colors: dict[str, str] = {}
    for group, shades in _SHADES.items():
        names = [name for name, own in groups.items() if own == group]
        colors |= {name: shades[index % len(shades)] for index, name in enumerate(names)}
    return colors


def thin(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """At most about `POINTS` points; of every bucket its lowest and highest stay, so no spike disappears."""
    if len(points) > POINTS:
        size = -(-2 * len(points) // POINTS)
        buckets = [points[start : start + size] for start in range(0, len(points), size)]
        points = [point for bucket in buckets for point in sorted({min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])})]
    return [x for x, _ in points], [y for _, y in points]
