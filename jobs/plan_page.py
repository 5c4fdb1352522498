"""What the questions of `cpt plan` answer: tables, and the files that they leave."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cpt.config.fingerprint import fingerprint
from cpt.config.run import RunConfig
from cpt.core.artifacts import write_bytes, write_text
from cpt.core.paths import RunPaths, RunsRoot
from cpt.core.records import MixturePlan

_SHOWN = 10
"""Layouts in the table of a search."""


def plan(config: RunConfig, mixture: MixturePlan, console: Console) -> None:
    """The plan, kept and shown."""
    from cpt.plan import plan as make
    from cpt.plan import rows

    record = make(config, mixture)
    path = config.runs.plan(config.name, fingerprint(config))
    record.save(path)
    table = Table(title=f"{config.name}-{fingerprint(config)}", show_header=False, box=None, title_justify="left")
    for row in rows(config, record):
        table.add_row(*row)
    console.print(table)
    console.print(f"saved as {path}", soft_wrap=True)


def search(config: RunConfig, console: Console) -> None:
    """The ten fastest layouts with what each loses by, the best as a config, and what is left after losing nodes."""
    from cpt.plan.search import found_yaml, losses
    from cpt.plan.search import rows as candidates
    from cpt.plan.search import search as find

    begun = time.perf_counter()
    found = find(config)
    title = f"{found.summary(config)}; {time.perf_counter() - begun:.2g} s"
    table = Table("", "layout", "recompute", "step", "fullest rank", "against the best", box=None, title=title, title_justify="left")
    for row in candidates(found, config, _SHOWN):
        table.add_row(*row)
    console.print(table)
    path = config.runs.found("parallel", f"{config.name}-{found.world_size}")
    write_text(path, found_yaml(found, config))
    console.print(f"the best is parallel={path.stem}: {path}", soft_wrap=True)
    lost = Table("nodes lost", "left", "with the chosen layout", "with the best layout", box=None, title="when nodes are lost", title_justify="left")
    for row in losses(config):
        lost.add_row(*row)
    console.print(lost)


def reliability(config: RunConfig, console: Console) -> None:
    """Failures, the interval between saves, spares: closed form beside simulation, and a picture."""
    from cpt.plan.advice import ask, rows
    from cpt.report.reliability_picture import reliability_picture

    run, advice = ask(config)
    for title, columns, lines in rows(config, run, advice):
        table = Table(*columns, box=None, title=title, title_justify="left")
        for line in lines:
            table.add_row(*line)
        console.print(table)
    path = config.runs.plan(config.name, fingerprint(config)).with_suffix(".reliability.png")
    write_bytes(path, reliability_picture(run, advice))
    console.print(f"drawn as {path}", soft_wrap=True)


def validate(runs: RunsRoot, console: Console) -> bool:
    """Every published figure beside ours. False when one that should hold does not."""
    from cpt.plan.published import published
    from cpt.plan.validate import checks, constants, explained
    from cpt.report.validation_picture import validation_picture

    rows = published()
    found = list(checks(rows))
    sources = list(dict.fromkeys(check.source for check in found))
    table = Table("figure", "of", "published", "ours", "error", "within", "source", box=None)
    for check in found:
        table.add_row(*check.row(), f"[{sources.index(check.source) + 1}]")
    console.print(table)
    for number, source in enumerate(sources, 1):
        console.print(f"[{number}] {source}")
    for line in constants(rows):
        console.print(line)
    gap = Table("e-Llama 70B", "GPU-hours", box=None)
    for what, hours in explained(rows):
        gap.add_row(what, f"{hours:,.0f}")
    console.print(gap)
    path = runs.root / "plans" / "validation.png"
    write_bytes(path, validation_picture(found))
    console.print(f"drawn as {path}", soft_wrap=True)
    wrong = [check for check in found if not check.holds and not check.outside]
    fitted = sum(check.calibrates for check in found)
    console.print(
        f"{sum(check.holds for check in found)} of {len(found)} hold, {fitted} of them fitted; {sum(bool(check.outside) for check in found)} are known not to"
    )
    return not wrong


def calibrate(folder: Path, console: Console) -> None:
    """What the run measured, beside what was assumed; a choice of `cluster/rates`."""
    from cpt.report.calibration import calibrate as measure
    from cpt.report.calibration import rates_yaml
    from cpt.report.facts import read_facts

    facts = read_facts(RunPaths(folder), "")
    rates, constants = measure(facts)
    table = Table("cluster.rates", "before", "after", "measured on", box=None)
    for constant in constants:
        table.add_row(constant.name, f"{constant.before:.4g}", f"{constant.after:.4g}", constant.why)
    console.print(table)
    path = facts.config.runs.found("cluster/rates", f"{facts.config.cluster.name}_measured")
    write_text(path, rates_yaml(rates))
    console.print(f"written as cluster/rates={path.stem}: {path}", soft_wrap=True)
