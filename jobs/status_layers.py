"""`cpt status RUN --layers`: what the last measured update did to each layer, and which layers stand out."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from rich.table import Table
from rich.text import Text

from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths

STANDS_OUT = 4.0
"""Times the median of its kind: marked."""

_FIGURES = ("grad_norm", "update_ratio")
_KINDS = ("attention", "mlp")

Part = dict[str, float]


def layers_page(run: RunPaths) -> Table:
    """A row per layer. Raises `UserError` when no update was measured yet."""
    files = sorted(run.layer_stats(0).parent.glob("step_*.jsonl"))
    if not files:
        fix = f"touch {run.triggers / 'stats'}, or train.stats_interval=<steps>"
        raise UserError(Problem(where="cpt status --layers", what=f"no update of {run.root.name} was measured", why="measuring is on demand", fix=fix))
    parts = read(files[-1])
    title = f"{run.root.name}, update {int(files[-1].stem.removeprefix('step_')):,}: {files[-1].relative_to(run.root)}"
    caption = f"gradients before clipping; update / weight: how much of itself it changed; ! more than {STANDS_OUT:g} x the median of its kind"
    table = Table("layer", title=title, caption=caption, box=None, title_justify="left", caption_justify="left", header_style="dim")
    for kind in _KINDS:
        table.add_column(f"{kind}\ngrad norm", justify="right")
        table.add_column("\nupdate / weight", justify="right")
    for layer in sorted({name.partition(".")[0] for name in parts if "." in name}):
        table.add_row(str(int(layer.removeprefix("layer_"))), *(_cell(parts, f"{layer}.{kind}", figure) for kind in _KINDS for figure in _FIGURES))
    for name in (name for name in parts if "." not in name):
        table.add_row(name.replace("_", " "), *(_cell(parts, name, figure) for figure in _FIGURES))
    return table


def read(file: Path) -> dict[str, Part]:
    """Name of a part -> its norms, in the order of the model."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row.pop("part"): row for row in rows}


def _cell(parts: dict[str, Part], name: str, figure: str) -> Text:
    value, kind = parts[name][figure], name.partition(".")[2]
    alike = [part[figure] for other, part in parts.items() if kind and other.partition(".")[2] == kind]
    loud = bool(alike) and value > STANDS_OUT * median(alike)
    return Text(f"{value:.3g} !" if loud else f"{value:.3g}  ", style="bold yellow" if loud else "")
