"""Which question `cpt status` was asked (a run, a sweep, or all runs of a folder), and its answer; once, or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from cpt.config.run import RunConfig
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths, SweepPaths
from jobs import status_tables
from jobs.status_facts import FINE, as_json, look
from jobs.status_page import page
from slurm import standing
from slurm.standing import OVER


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """`over`: nothing will change by itself."""

    page: RenderableType
    values: object
    """The same as plain JSON values."""
    exit_code: int
    over: bool


def locate(name: str) -> Path:
    """A folder as typed, or below the run root. Raises `UserError` when nothing there can be asked about."""
    root = Path(RunConfig().run_root)
    for folder in (Path(name), root / name, root / "sweeps" / name) if name else (root,):
        if any((folder / known).is_file() for known in ("config.yaml", "sweep.json")) or status_tables.any_in(folder):
            return folder.absolute()
    why = f"a run directory holds config.yaml, a sweep sweep.json; looked here and in {root}" if name else "nothing was launched from this folder"
    fix = "its path, or its name below it; cpt status lists them" if name else "cpt launch"
    raise UserError(Problem(where=name or str(root), what="is no run, sweep or folder of runs", why=why, fix=fix))


def answer(folder: Path, accounts: bool = True) -> Answer:
    """About whatever `folder` is."""
    if (SweepPaths(folder).sweep).is_file():
        return _of_sweep(SweepPaths(folder))
    if RunPaths(folder).config.is_file():
        return _of_run(RunPaths(folder), accounts)
    return _of_runs(folder, accounts)


def watch(console: Console, ask: Callable[[], Answer], seconds: float) -> int:
    """Ask every `seconds` until nothing will change or Ctrl-C: redrawn on a terminal, a block after the other in a log. The last exit code."""
    last = ask()
    if not console.is_terminal:
        console.print(last.page)
        while not last.over:
            time.sleep(seconds)
            last = ask()
            console.print(f"\n---- {time.strftime('%H:%M:%S')}")
            console.print(last.page)
        return last.exit_code
    with Live(last.page, console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while not last.over:
            time.sleep(seconds)
            last = ask()
            live.update(last.page, refresh=True)
    return last.exit_code


def _of_run(run: RunPaths, accounts: bool) -> Answer:
    facts = look(run, accounts)
    return Answer(page=page(facts), values=as_json(facts), exit_code=facts.exit_code, over=facts.standing.state in OVER)


def _of_sweep(sweep: SweepPaths) -> Answer:
    trials = standing.of_sweep(sweep)
    return Answer(
        page=status_tables.trial_table(sweep.root.name, trials),
        values={"sweep": str(sweep.root), "trials": status_tables.trials_as_json(trials)},
        exit_code=status_tables.trials_exit_code(trials),
        over=status_tables.all_ended(trials),
    )


def _of_runs(root: Path, accounts: bool) -> Answer:
    """All of them, and the newest in full; its exit code is the answer's."""
    lines, blocks = status_tables.run_lines(root), list[RenderableType]()
    if lines:
        newest = _of_run(lines[0].run, accounts)
        blocks = [newest.page] if len(lines) == 1 else [status_tables.run_table(root, lines), Text("\nthe newest:\n", style="dim"), newest.page]
    sweeps = [Text(f"sweep {sweep.root.name}: {status_tables.tally(standing.of_sweep(sweep))}") for sweep in status_tables.sweeps(root)]
    return Answer(
        page=Group(*blocks, *([Text()] if blocks and sweeps else []), *sweeps),
        values={"runs": status_tables.runs_as_json(lines), "newest": newest.values if lines else None},
        exit_code=newest.exit_code if lines else FINE,
        over=not lines or newest.over,
    )
