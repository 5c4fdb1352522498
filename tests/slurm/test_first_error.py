"""The cause among hundreds of last words, and no secret in what is kept of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_json, write_text
from cpt.core.attempts import Action, AttemptEnd, Ending, RankRecord
from cpt.core.paths import AttemptPaths, RunPaths
from slurm import first_error

NOON = time.mktime((2026, 11, 23, 12, 3, 44, 0, 0, -1))
PEER = 'Traceback (most recent call last):\n  File "/suite/cpt/train/loop.py", line 40, in train\n    step()\nConnectionError: lost peer 10.0.0.{}:4{}\n'
CRASH = 'step 56\nTraceback (most recent call last):\n  File "a.py", line 1, in <module>\n    boom()\nRuntimeError: CUDA error: an illegal memory access\nsome more output\n'


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    run = RunPaths(tmp_path)
    run.attempt(3).root.mkdir(parents=True)
    return run


@pytest.fixture
def attempt(run: RunPaths) -> AttemptPaths:
    return run.attempt(3)


def record(attempt: AttemptPaths, rank: int, at: float, signature: str = "ConnectionError at loop.py:40 in train", message: str = "lost peer") -> None:
    RankRecord(rank=rank, host=f"node{rank // 4}", outcome="crash", step=57, time=at, signature=signature, message=message).save(attempt.rank(rank))


def beat(attempt: AttemptPaths, rank: int, at: float = NOON, phase: str = "step") -> None:
    host = f"node{rank // 4}"
    write_json(attempt.beat(host, rank), {"rank": rank, "host": host, "pid": 1, "phase": phase, "step": 57, "since": at, "time": at})


def end(attempt: AttemptPaths, ending: Ending, nodes: list[str], rank: int = -1) -> None:
    record = AttemptEnd(number=3, ending=ending, action=Action.relaunch, code=143, message="", step=50, time=NOON + 9, nodes=nodes, rank=rank)
    record.save(attempt.end)


def test_the_cause_is_named_and_the_victims_are_counted(run: RunPaths, attempt: AttemptPaths) -> None:
    for rank in range(480):
        beat(attempt, rank)
        attempt.log(rank).write_text(CRASH if rank == 17 else "step 56\n" + PEER.format(rank, rank))
        if rank != 300:
            record(attempt, rank, NOON - 1 + (rank == 17), "RuntimeError at a.py:1 in <module>" if rank == 17 else "ConnectionError at loop.py:40 in train")
    assert first_error.write(run, 3) is not None
    assert attempt.first_error.read_text().splitlines() == [
        "rank 17 on node4 at 12:03:44",
        "Traceback (most recent call last):",
        '  File "a.py", line 1, in <module>',
        "    boom()",
        "RuntimeError: CUDA error: an illegal memory access",
        "",
        "then",
        "479 ranks: ConnectionError: lost peer 10.0.0.0:40",
    ]


def test_of_several_own_errors_the_earliest_record_counts(run: RunPaths, attempt: AttemptPaths) -> None:
    record(attempt, 2, NOON + 1, "ValueError at b.py:1 in f", "second")
    record(attempt, 1, NOON, "KeyError at a.py:1 in f", "first")
    attempt.log(0).write_text("a warning that speaks of an Error\n")
    found = first_error.find(run, 3)
    assert found is not None and found.cause.rank == 1
    assert str(found).splitlines()[:2] == ["rank 1 on node0 at 12:03:44", "KeyError at a.py:1 in f: first"]
    assert {said for _, said in found.others} == {"ValueError at b.py:1 in f: second", "a warning that speaks of an Error"}


def test_when_all_complain_of_a_peer_the_silent_rank_is_the_cause(run: RunPaths, attempt: AttemptPaths) -> None:
    for rank in range(8):
        beat(attempt, rank)
        if rank != 5:
            record(attempt, rank, NOON)
    found = first_error.find(run, 3)
    assert found is not None and (found.cause.rank, found.cause.host) == (5, "node1")
    assert found.cause.lines[0].startswith("no last word after step 57 (step): its node is gone")
    assert found.others == [(7, "ConnectionError at loop.py:40 in train: lost peer")]


def test_ranks_killed_after_a_crash_are_not_its_cause(run: RunPaths, attempt: AttemptPaths) -> None:
    for rank in range(8):
        beat(attempt, rank, NOON - rank)
    record(attempt, 0, NOON)
    end(attempt, Ending.rank_crash, [])
    found = first_error.find(run, 3)
    assert found is not None and found.cause.rank == 0
    assert found.others == [(7, "no last word")]


def test_a_lost_node_is_named_by_its_first_silent_rank(run: RunPaths, attempt: AttemptPaths) -> None:
    for rank in range(8):
        beat(attempt, rank, NOON + rank)
    end(attempt, Ending.node_lost, ["node1"])
    found = first_error.find(run, 3)
    assert found is not None and (found.cause.rank, found.cause.host) == (4, "node1")


def test_a_hang_shows_where_the_blamed_rank_stood(run: RunPaths, attempt: AttemptPaths) -> None:
    for rank in range(4):
        beat(attempt, rank)
        attempt.log(rank).write_text('step 57\nCurrent thread 0x7f (most recent call first):\n  File "read.py", line 9 in read\n')
    end(attempt, Ending.hang, [], rank=2)
    found = first_error.find(run, 3)
    assert found is not None and found.cause.rank == 2
    assert found.cause.lines[1:] == ["Current thread 0x7f (most recent call first):", '  File "read.py", line 9 in read']


@pytest.mark.parametrize(
    "line",
    ["NCCL WARN NET/IB : got completion", "Killed", "Bus error (core dumped)", "[FATAL] no device", "Fatal Python error: Segmentation fault", "OSError: disk"],
)
def test_a_log_alone_is_enough(run: RunPaths, attempt: AttemptPaths, line: str) -> None:
    beat(attempt, 6)
    attempt.log(6).write_text(f"step 1\n{line}\n    indented under it\nstep 2\n")
    found = first_error.find(run, 3)
    assert found is not None and (found.cause.rank, found.cause.host) == (6, "node1")
    assert found.cause.lines == [line, "    indented under it"]


def test_a_long_log_is_read_from_its_end_and_a_long_traceback_keeps_its_end(run: RunPaths, attempt: AttemptPaths) -> None:
    frames = "".join(f'  File "deep.py", line {number}\n' for number in range(200))
    attempt.log(0).write_text("Error of long ago\n" + "x" * 100_000 + f"\nTraceback (most recent call last):\n{frames}RecursionError: too deep\n")
    found = first_error.find(run, 3)
    assert found is not None
    assert found.cause.lines[0] == "Traceback (most recent call last):" and found.cause.lines[-1] == "RecursionError: too deep"
    assert len(found.cause.lines) == 24


def test_nothing_said_writes_nothing(run: RunPaths, attempt: AttemptPaths) -> None:
    for rank in range(4):
        beat(attempt, rank)
    end(attempt, Ending.rank_crash, [])
    attempt.rank(0).write_text("torn")
    assert first_error.write(run, 3) is None
    assert not attempt.first_error.exists()


def test_values_of_secrets_become_their_names(run: RunPaths, attempt: AttemptPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    monkeypatch.setenv("LONG_TOKEN", "hf_abcdef")
    monkeypatch.setenv("EMPTY", "")
    config = compose_config(["model=tiny", "train.train_tokens=81920", "cluster.secrets=[HF_TOKEN,LONG_TOKEN,EMPTY,UNSET]"])
    write_text(run.config, to_yaml(config))
    record(attempt, 0, NOON, "OSError at a.py:1 in f", "401 for hf_abcdef")
    record(attempt, 1, NOON + 1, "OSError at a.py:1 in f", "403 for hf_abc")
    first_error.write(run, 3)
    text = attempt.first_error.read_text()
    assert "401 for <LONG_TOKEN>" in text and "403 for <HF_TOKEN>" in text and "hf_abc" not in text
