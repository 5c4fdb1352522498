"""A rank's last word."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.core.attempts import RankRecord
from cpt.core.errors import MissingInput
from cpt.core.paths import RunPaths
from cpt.core.world import World
from slurm.rank import exit_code, last_word

WORLD = World(rank=3, world_size=4, node_name="node2")


def word(run: RunPaths) -> RankRecord:
    return RankRecord.load(run.attempt(0).rank(3))


def test_what_the_user_must_fix_is_fatal(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    with pytest.raises(MissingInput), last_word(run, 0, WORLD):
        raise MissingInput(path="/data/train.bin", why="it is read", fix="cpt prepare")
    assert (word(run).outcome, word(run).host, word(run).rank) == ("fatal", "node2", 3)
    assert "/data/train.bin" in word(run).message


def test_a_crash_is_known_by_type_and_place(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    with pytest.raises(ZeroDivisionError), last_word(run, 0, WORLD):
        1 / 0  # noqa: B018
    assert word(run).outcome == "crash"
    assert word(run).signature.startswith("ZeroDivisionError at test_rank.py:")


def test_trainings_own_record_stays(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    own = RankRecord(rank=3, host="node2", outcome="fatal", step=7, message="parity")
    with pytest.raises(RuntimeError), last_word(run, 0, WORLD):
        own.save(run.attempt(0).rank(3))
        raise RuntimeError
    assert word(run) == own


def test_a_rank_that_ends_well_says_nothing(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    with last_word(run, 0, WORLD):
        pass
    assert run.attempts() == []


def test_a_saved_stop_of_several_ranks_is_no_failure() -> None:
    assert exit_code(75, WORLD) == 0, "else srun kills the siblings that still write"
    assert exit_code(75, World()) == 75
    assert exit_code(1, WORLD) == 1
