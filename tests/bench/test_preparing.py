"""Both sides make the same; what differs is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.bench import preparing
from cpt.bench.preparing import OPTIONS, Measured, run
from cpt.bench.rivals import Outcome
from cpt.core.errors import CptError, UserError

SMALL = {**OPTIONS, "source": "novels", "documents": "12", "pairs": "1"}
TINY = ["model=tiny", "corpus=sample"]


def test_the_same_comes_out_on_both_sides(tmp_path: Path) -> None:
    found = run({**SMALL, "folder": str(tmp_path)}, TINY, print)
    assert [row[0] for row in found.rows] == ["filters and signatures", "tokens"]
    for kind in ("filters", "tokens"):
        one = found.data[kind]
        assert one["ratio"] == pytest.approx(one["theirs"][0] / one["ours"][0])
    assert found.data["documents"] == 12 and found.data["bytes"] > 4_000
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_what_differs_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_measure", lambda side, *_: Outcome(1.0, side))
    with pytest.raises(CptError, match="ours gave ours, theirs theirs: nothing to compare"):
        run({**SMALL, "folder": str(tmp_path)}, TINY, print)


def test_a_source_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no source of the corpus"):
        run({**SMALL, "source": "no", "folder": str(tmp_path)}, TINY, print)


def test_ratios_are_medians_of_pairs() -> None:
    assert Measured(ours=[1.0, 2.0, 1.0], theirs=[10.0, 22.0, 30.0]).ratio == 11.0
