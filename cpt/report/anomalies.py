"""Updates that stood out: what was seen, what was done, and the sequences that did most for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cpt.report.facts import Facts
from cpt.report.page import EMPTY, Html, section, table
from cpt.tracking.journal import ROLLBACK, anomalies

_SHOWN = 20


def stood_out(facts: Facts) -> Html:
    """A line for each, the newest when there are many; nothing when none did: `train.anomaly` decides what counts."""
    found = anomalies(facts.events)
    if not found:
        return EMPTY
    back = [event.fields for event in facts.events if event.name == ROLLBACK]
    rows = [tuple(_row(event.fields)) for event in found[-_SHOWN:]]
    lead = f"{len(found)} update(s), {'the last ' + str(_SHOWN) + ' here' if len(found) > _SHOWN else 'all here'}; triangles in the loss picture. "
    lead += "".join(f"Rolled back to step {fields['step']}; samples {_window(fields['skipped'])} were never read again. " for fields in back)
    columns = ("update", "kind", "done", "why", "loss", "gradient norm", "samples", "highest loss")
    return section("Updates that stood out", table(columns, rows, words=(1, 2, 3, 7)), lead=lead)


def _row(fields: dict[str, Any]) -> Iterator[str]:
    yield str(fields["step"])
    yield str(fields["kind"]).replace("_", " ")
    yield str(fields["action"])
    yield str(fields["why"])
    for name in ("loss", "grad_norm"):
        value = fields[name]
        yield value if isinstance(value, str) else f"{value:.3f}"
    yield _window(fields["samples"])
    yield ", ".join(f"{one['sample']} of {one['source']}" for one in fields["worst"][:3])


def _window(samples: list[int]) -> str:
    start, stop = samples
    return f"{start} to {stop - 1}"
