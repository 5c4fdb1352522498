"""What the drill found, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.slurm.faults import SAVE_EVERY, Outcome

_HEAD = """| fault | what is expected | way back | steps lost | seconds to the next step |
|---|---|---|---|---|
"""


def write_table(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Replace the part of the page between its two marks; print the same."""
    text = _HEAD + "".join(_row(outcome) for outcome in outcomes)
    print(f"\n{text}")
    page = path.read_text()
    head, _, rest = page.partition("<!-- light -->\n")
    path.write_text(f"{head}<!-- light -->\n{text}<!-- end -->{rest.partition('<!-- end -->')[2]}")


def _row(outcome: Outcome) -> str:
    lost = "-" if outcome.steps_lost is None else f"{outcome.steps_lost} of at most {outcome.fault.behave.get('save_every', SAVE_EVERY)}"
    seconds = "-" if outcome.seconds is None else f"{outcome.seconds:.1f}"
    return f"| {outcome.fault.name} | {outcome.fault.says} | {outcome.path or '-'} | {lost} | {seconds} |\n"
