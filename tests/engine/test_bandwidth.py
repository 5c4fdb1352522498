"""Groups of real ranks: what is measured of whom, and that somebody who does not answer is named and not waited for."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Generator, Sequence

import pytest

from cpt.core.world import World
from tests.ranks import Ranks, run_ranks

pytestmark = pytest.mark.engine

QUESTIONS = [[("a",), ("b",)], [("a", "b")], [("b", "a"), ("c",)], [("a", "b", "c")]]


def questions() -> Generator[list[tuple[str, ...]], Sequence[float], list[list[float]]]:
    found = []
    for groups in QUESTIONS:
        found.append(list((yield groups)))
    return found


def take_part(world: World, seconds: float, fault: str = "") -> list[list[dict[str, object]]] | str:
    """Two ranks on each of three nodes; the last rank of `c` has the fault."""
    from cpt.engine.bandwidth import Crew, Silent, Trial

    world = dataclasses.replace(world, node_name="abc"[world.rank // 2], local_rank=world.rank % 2)
    last = world.rank == world.world_size - 1
    if last and fault == "never comes":
        return ""
    try:
        crew = Crew(world, ["a", "b", "c"], 2, Trial(size=200_000, repeats=2, seconds=seconds))
        if world.rank:
            if last and fault == "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
            crew.follow()
            return ""
        assert crew.lead(questions()) == [[speeds.all_reduce for speeds in row.values()] for row in crew.rounds]
        return [[dataclasses.asdict(speeds) for speeds in row.values()] for row in crew.rounds]
    except Silent as silent:
        return f"{list(silent.nodes)} {silent}"
    except RuntimeError:
        assert fault, "only whom rank 0 has left is surprised"
        return ""


def test_every_group_is_measured() -> None:
    rounds = run_ranks(6, take_part, 60.0)[0]
    assert [len(row) for row in rounds] == [2, 1, 2, 1]
    assert all(speeds["all_reduce"] > 1e5 and speeds["all_gather"] > 1e5 and not speeds["failed"] for row in rounds for speeds in row)


@pytest.mark.parametrize("fault", ["never comes", "stops"])
def test_who_does_not_answer_is_named(fault: str) -> None:
    started = time.monotonic()
    ranks = Ranks(6, take_part, 4.0, fault)
    rank, good, said = next(answer for answer in iter(ranks.results.get, None) if answer[0] == 0)
    ranks.kill()
    assert (rank, good) == (0, True), said
    assert said.startswith("['c'] c: no answer in 9 s"), said
    assert time.monotonic() - started < 120


def test_bus_bandwidth_is_that_of_nccl_tests() -> None:
    """Of the repeat whose slowest rank was fastest, over both sizes."""
    from cpt.engine.bandwidth import _Answer, _speeds

    fast = _Answer(reduced=[[9.0, 1.0], [2.0, 3.0]], gathered=[[1.0, 1.0], [1.0, 2.0]])
    slow = _Answer(reduced=[[9.0, 2.0], [4.0, 5.0]], gathered=[[1.0, 3.0], [4.0, 2.0]])
    speeds = _speeds([fast, slow, fast, fast], [100, 800])
    assert speeds.all_reduce == 800 / 4.0 * 2 * 3 / 4
    assert speeds.all_gather == 800 / 2.0 * 3 / 4
    assert _speeds([fast, _Answer(failed="no route")], [100, 800]).all_reduce == 0.0
