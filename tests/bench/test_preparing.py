"""Both sides make the same; what differs is refused; planted pairs are as alike as they are said to be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cpt.bench import preparing
from cpt.bench.duplicates import CLOSE, LEVELS, WORDS, Planted, count, expected, plant, similarity
from cpt.bench.measuring import Work, measure
from cpt.bench.preparing import OPTIONS, Measured, Scaling, run
from cpt.bench.rivals import Outcome
from cpt.core.errors import CptError, UserError

SMALL = {**OPTIONS, "source": "novels", "documents": "12", "pairs": "1", "planted": "4"}
TINY = ["model=tiny", "corpus=sample"]


@pytest.mark.slow
def test_the_same_comes_out_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_scale", lambda *_: Scaling(clock=1.9, processor=2.0, memory={3: 100_000_000, 12: 110_000_000}))
    found = run({**SMALL, "folder": str(tmp_path)}, TINY, print)
    assert [row[0] for row in found.rows][:3] == ["filters and signatures, documents/s", "tokens, documents/s", "near-duplicates found at 0.7"]
    for kind in ("filters", "tokens"):
        one = found.data[kind]
        assert one["ratio"] == pytest.approx(one["theirs"][0] / one["ours"][0])
    assert found.data["documents"] == 12 and found.data["bytes"] > 4_000
    finds = found.data["near_duplicates"]
    assert finds["ours"] == finds["theirs"] and finds["ours"]["recall"]["0.9"] == finds["ours"]["precision"] == 1
    seconds = found.data["filters"]["ours"][0] + found.data["tokens"]["ours"][0]
    assert found.data["core_hours_for_1t_tokens"] == pytest.approx(seconds / found.data["tokens_read"] * 1e12 / 3600)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_what_differs_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "measure", lambda work: Outcome(1.0, work.side))
    with pytest.raises(CptError, match="ours gave ours, theirs theirs: nothing to compare"):
        run({**SMALL, "folder": str(tmp_path)}, TINY, print)


def test_a_source_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no source of the corpus"):
        run({**SMALL, "source": "no", "folder": str(tmp_path)}, TINY, print)


def test_ratios_are_medians_of_pairs() -> None:
    assert Measured(ours=[1.0, 2.0, 1.0], theirs=[10.0, 22.0, 30.0]).ratio == 11.0


def test_a_worker_says_what_it_took(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "the end of a story that goes on and on"}\n' * 3)
    found = measure(Work("ours", "worker", tmp_path, "none"))
    assert 0 < found.seconds < found.wall * 2 and 2**25 < found.memory < 2**31
    assert (tmp_path / "keys").stat().st_size == 3 * 14 * 8, "a number for each band of each document"
    with pytest.raises(CptError, match="KeyError"):
        measure(Work("ours", "worker", tmp_path, "no profile"))


def test_pairs_are_as_alike_as_planted() -> None:
    words = [f"{first}{second}" for first in "bdfgklmnprstvz" for second in random.Random(3).sample(range(1000), 60)]
    planted = plant(words, 5, str.split)
    assert len(planted.texts) == len(set(planted.texts)) == 2 * 3 * 5 + 3 * 5
    for level in LEVELS:
        for first, second in planted.pairs[level]:
            one, other = planted.texts[first].split(), planted.texts[second].split()
            assert len(one) == len(other) == WORDS and abs(similarity(one, other) - level) <= CLOSE
    alone = set(range(len(planted.texts))) - {place for pairs in planted.pairs.values() for pair in pairs for place in pair}
    assert len(alone) == 15
    assert all(similarity(planted.texts[one].split(), text.split()) < 0.1 for one in alone for place, text in enumerate(planted.texts) if place != one)


def test_finds_are_counted_by_pairs() -> None:
    found = count(Planted([""] * 9, {0.7: [(0, 5), (1, 6)], 0.9: [(7, 2)]}), {5, 7, 8, 3})
    assert found.recall == {0.7: 0.5, 0.9: 1.0} and found.precision == 0.5
    assert similarity(list("abcdef"), list("abcdeg")) == pytest.approx(1 / 3)
    assert expected(0.8, 14, 8) == pytest.approx(0.9235, abs=1e-4)
