"""Signs of life: a thread of its own writes them, a closed attempt ends them, half of one is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cpt.core.heartbeat import Beat, Heart, Phase, read_beat, read_beats
from cpt.core.paths import RunPaths


def wait_for(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def now(path: Path) -> Beat:
    wait_for(lambda: read_beat(path))
    found = read_beat(path)
    return found if found else now(path)  # caught while it was being written


def test_it_beats_by_itself_while_the_main_thread_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "beats" / "node1.0003"
    with Heart(path, 3, "node1", 0.01) as heart:
        first = now(path)
        assert (first.rank, first.host, first.pid, first.phase, first.step) == (3, "node1", os.getpid(), Phase.start, 0)
        wait_for(lambda: now(path).time > first.time)
        heart.at(Phase.save, 7)
        assert heart.step == 7
        wait_for(lambda: (now(path).phase, now(path).step) == (Phase.save, 7))
        since = now(path).since
        wait_for(lambda: now(path).time > since + 0.05)
        assert now(path).since == since, "a phase begins once"
    assert (now(path).phase, now(path).step) == (Phase.done, 7)


def test_who_fails_is_not_done(tmp_path: Path) -> None:
    path = tmp_path / "node1.0000"
    with pytest.raises(RuntimeError), Heart(path, 0, "node1", 0.01) as heart:
        heart.at(Phase.step, 3)
        wait_for(lambda: now(path).step == 3)
        raise RuntimeError
    assert now(path).phase is Phase.step


def test_a_disk_that_fails_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "beats" / "node1.0000"
    with Heart(path, 0, "node1", 0.01) as heart:
        shutil.rmtree(path.parent)
        time.sleep(0.05)
        path.parent.mkdir()
        heart.at(Phase.step, 1)
        wait_for(lambda: now(path).step == 1)


STRAY = """
import sys, time
from pathlib import Path
from cpt.core.heartbeat import Heart
folder = Path(sys.argv[1])
with Heart(folder / "node1.0000", 0, "node1", 0.02, closed=folder / "end.json"):
    try:
        time.sleep(60)
    finally:
        (folder / "written").touch()
"""


def test_a_closed_attempt_ends_the_process_at_once(tmp_path: Path) -> None:
    """Cut off from its killers, it must not write another byte beside its successor."""
    stray = subprocess.Popen([sys.executable, "-c", STRAY, str(tmp_path)])
    try:
        wait_for(lambda: read_beat(tmp_path / "node1.0000"))
        assert stray.poll() is None
        (tmp_path / "end.json").touch()
        assert stray.wait(30) == 1
        assert not (tmp_path / "written").exists()
    finally:
        stray.kill()
        stray.wait()


WHOLE = '{"rank": 2, "host": "node1", "pid": 7, "phase": "step", "step": 5, "since": 1.0, "time": 2.0}\n'


@pytest.mark.parametrize("text", [WHOLE[:40], "", "[]", "null", WHOLE.replace("step", "stop"), WHOLE.replace('"pid": 7, ', ""), "\udcff"])
def test_half_a_beat_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node1.0002"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert read_beat(path) is None
    assert read_beat(tmp_path / "nobody") is None


def test_all_beats_of_an_attempt_by_rank(tmp_path: Path) -> None:
    attempt = RunPaths(tmp_path).attempt(0)
    assert read_beats(attempt) == []
    attempt.beats.mkdir(parents=True)
    for rank, host in ((10, "node1"), (2, "node2.cluster"), (3, "node1")):
        attempt.beat(host, rank).write_text(WHOLE.replace('"rank": 2', f'"rank": {rank}') if rank != 3 else WHOLE[:9])
    assert [beat.rank for beat in read_beats(attempt)] == [2, 10]
