"""What the drill found, as tables for people: one between each pair of marks on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.slurm.faults import Outcome

Column = Callable[[Outcome], str]

COLUMNS: Mapping[str, Column] = {
    "fault": lambda outcome: outcome.fault.name,
    "what is expected": lambda outcome: outcome.fault.says,
    "way back": lambda outcome: outcome.path or "-",
    "steps lost": lambda outcome: "-" if outcome.steps_lost is None else f"{outcome.steps_lost} of at most {outcome.interval}",
    "seconds to the next step": lambda outcome: "-" if outcome.seconds is None else f"{outcome.seconds:.1f}",
}


def write_table(path: Path, part: str, outcomes: Sequence[Outcome], columns: Mapping[str, Column] = COLUMNS) -> None:
    """Replace what is between `<!-- part -->` and `<!-- end -->` on the page; print the same."""
    rows = [list(columns), ["---"] * len(columns), *([column(outcome) for column in columns.values()] for outcome in outcomes)]
    write_part(path, part, "".join(f"| {' | '.join(row)} |\n" for row in rows))


def write_part(path: Path, part: str, text: str) -> None:
    """The same for any text of whole lines. Raises `ValueError` for a part that the page lacks."""
    print(f"\n{text}")
    mark, page = f"<!-- {part} -->\n", path.read_text()
    if mark not in page:
        raise ValueError(f"{path} has no {mark.strip()}")
    head, rest = page.split(mark, 1)
    path.write_text(f"{head}{mark}{text}<!-- end -->{rest.partition('<!-- end -->')[2]}")
