"""The decision: the most domain for an allowed amount of forgetting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from cpt.config.training import SweepConfig
from cpt.core.artifacts import write_text
from cpt.core.paths import RunsRoot, SweepPaths
from cpt.core.records import SweepTable, TrialRow
from cpt.sweep.collect import ENDED, Series, base_losses, collect_rows


def decide(sweep: SweepPaths, policy: SweepConfig, series: Series) -> SweepTable:
    """Collect all trials and choose among those that are done; `chosen` is None when none is."""
    rows = collect_rows(sweep, policy.keys, series)
    domain, general = base_losses(sweep, series)
    chosen, reason = choose(rows, policy.forgetting_limit)
    return SweepTable(
        name=sweep.root.name,
        rows=rows,
        base_domain_loss=domain,
        base_general_loss=general,
        forgetting_limit=policy.forgetting_limit,
        chosen=chosen,
        reason=reason,
        notes=list(_notes(rows, policy.keys)),
    )


def choose(rows: Sequence[TrialRow], limit: float) -> tuple[int | None, str]:
    """Index and reason. Lowest domain loss among done trials in which no general source rose more than `limit` (nats a token)."""
    done = [(row.domain_loss, row.general_loss, row.index) for row in rows if row.domain_loss is not None and row.general_loss is not None]
    done = [item for item in done if math.isfinite(item[0] + item[1])]  # a diverged trial compares with nothing
    if not done:
        return None, "no trial is done with a finite loss"
    forgotten = {row.index: row.forgotten for row in rows if row.forgotten}
    if not forgotten:
        _, _, index = min(done, key=lambda item: (item[1], item[0]))
        return index, "the base was not evaluated, so forgetting is unknown: lowest general loss (evaluate.at_start=true measures it)"
    known = [(domain, index, *forgotten[index]) for domain, _, index in done if index in forgotten]
    allowed = [item for item in known if item[3] <= limit]
    if allowed:
        _, index, source, rise = min(allowed)
        what = f"lowest domain loss of {len(allowed)} trial(s) in which no general source rose more than {limit:g}"
        return index, f"{what} (here {source} {rise:+.4f})"
    _, index, source, rise = min(known, key=lambda item: (item[3], item[0]))
    return index, f"every trial forgets more than {limit:g}: smallest rise of a general source ({source} {rise:+.4f})"


def _notes(rows: Sequence[TrialRow], keys: Sequence[str]) -> Iterator[str]:
    for row in rows:
        if row.state == "failed":
            yield f"trial {row.index:03d} failed and was left out"
        if row.state == "done" and (row.domain_loss is None or row.general_loss is None):
            yield f"trial {row.index:03d} is done but journaled no held-out loss"
    for axis in _axes(rows):
        if not any(key == axis or key.startswith(f"{axis}.") for key in keys):
            yield f"{axis} differs between trials but is not in sweep.keys, so it is not carried over"


def _axes(rows: Sequence[TrialRow]) -> list[str]:
    """Override keys with more than one value over the trials."""
    pairs = {tuple(override.partition("=")[::2]) for row in rows for override in row.overrides}
    names = [name for name, _ in pairs]
    return sorted({name for name in names if names.count(name) > 1})


def complete(table: SweepTable) -> bool:
    """Every trial has ended, one way or the other."""
    return all(row.state in ENDED for row in table.rows)


def write_choice(table: SweepTable, sweep: SweepPaths, runs: RunsRoot) -> str:
    """Leave table.json and the chosen setting, composable as `chosen=<name>`. Returns the setting's YAML."""
    table.save(sweep.table)
    row = next(row for row in table.rows if row.index == table.chosen)
    text = chosen_yaml(table, row)
    write_text(runs.chosen(table.name), text)
    return text


def chosen_yaml(table: SweepTable, row: TrialRow) -> str:
    """A Hydra config that lays the chosen trial's settings over any experiment."""
    import yaml

    nested: dict[str, Any] = {}
    for path, value in row.settings.items():
        *parents, last = path.split(".")
        inner = nested
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = value
    head = f"# @package _global_\n# Trial {row.index:03d} of sweep {table.name}: {table.reason}.\n"
    return head + yaml.safe_dump(nested, sort_keys=False)
