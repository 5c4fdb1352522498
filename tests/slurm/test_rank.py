"""One rank's life: a clean node before, stacks on demand during, its last word after."""

from __future__ import annotations

import errno
import faulthandler
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cpt.core.artifacts import write_json
from cpt.core.attempts import RankRecord
from cpt.core.errors import CptError, MissingInput
from cpt.core.heartbeat import Phase, read_beats
from cpt.core.paths import RunPaths
from cpt.core.world import World
from slurm import rank as rank_module
from slurm.rank import STACKS, alive, end_predecessors, exit_code

WORLD = World(rank=3, world_size=4, node_name="node2")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunPaths]:
    """Its stacks are no longer wanted when the test is over."""
    yield RunPaths(tmp_path / "a run")
    faulthandler.unregister(STACKS)


def word(run: RunPaths) -> RankRecord:
    return RankRecord.load(run.attempt(0).rank(3))


def fail(run: RunPaths, error: BaseException, step: int = 7) -> RankRecord:
    with pytest.raises(type(error)), alive(run, 0, WORLD, 60.0) as heart:
        heart.at(Phase.step, step)
        raise error
    return word(run)


def test_what_the_user_must_fix_is_fatal(run: RunPaths) -> None:
    said = fail(run, MissingInput(path="/data/train.bin", why="it is read", fix="cpt prepare"), step=0)
    assert (said.outcome, said.host, said.rank, said.step) == ("fatal", "node2", 3, 0)
    assert "/data/train.bin" in said.message


def test_a_crash_is_known_by_type_and_place_and_step(run: RunPaths) -> None:
    said = fail(run, ZeroDivisionError("loss"))
    assert (said.outcome, said.step, said.message) == ("crash", 7, "ZeroDivisionError('loss')")
    assert said.signature.startswith("ZeroDivisionError at test_rank.py:") and said.signature.endswith(" in fail")
    assert abs(said.time - time.time()) < 60


def from_full_disk() -> RuntimeError:
    error = RuntimeError("could not save")
    error.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    return error


FULL = [OSError(errno.ENOSPC, "No space left on device"), from_full_disk()]


@pytest.mark.parametrize("error", FULL, ids=["by number", "by its cause"])
def test_a_full_disk_is_fatal_and_torn_saves_make_room_for_these_words(run: RunPaths, error: Exception) -> None:
    torn, whole = run.checkpoints / ".step_00000008.tmp", run.checkpoints / "step_00000005"
    for folder in (torn, whole):
        write_json(folder / "state.json", {})
    said = fail(run, error)
    assert said.outcome == "fatal" and "is full" in said.message and "checkpoint.keep_last" in said.message
    assert not torn.exists() and whole.exists()


def test_the_first_word_of_a_rank_stays(run: RunPaths) -> None:
    own = RankRecord(rank=3, host="node2", outcome="fatal", step=7, message="parity")
    with pytest.raises(RuntimeError), alive(run, 0, WORLD, 60.0):
        own.save(run.attempt(0).rank(3))
        raise RuntimeError
    assert word(run) == own


def test_a_rank_that_ends_well_says_only_that(run: RunPaths) -> None:
    with alive(run, 0, WORLD, 60.0) as heart:
        heart.at(Phase.step, 20)
    (beat,) = read_beats(run.attempt(0))
    assert (beat.rank, beat.host, beat.phase, beat.step) == (3, "node2", Phase.done, 20)
    assert list(run.attempt(0).root.glob("rank_*")) == []


def test_a_saved_stop_of_several_ranks_is_no_failure() -> None:
    assert exit_code(75, WORLD) == 0, "else srun kills the siblings that still write"
    assert exit_code(75, World()) == 75
    assert exit_code(1, WORLD) == 1


Spawn = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """A process that lives for a minute and ignores what politely asks it to end; its argument is in its command line."""
    children: list[subprocess.Popen[bytes]] = []

    def start(argument: str) -> subprocess.Popen[bytes]:
        program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
        children.append(subprocess.Popen([sys.executable, "-c", program, argument], stdout=subprocess.PIPE))
        assert children[-1].stdout and children[-1].stdout.readline() == b"up\n"
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


def beaten_by(run: RunPaths, attempt: int, pid: int, host: str = "node2") -> None:
    beat = {"rank": 0, "host": host, "pid": pid, "phase": "step", "step": 3, "since": 1.0, "time": 1.0}
    write_json(run.attempt(attempt).beat(host, 0), beat)


def test_what_earlier_attempts_left_on_this_node_is_ended_first(run: RunPaths, spawn: Spawn) -> None:
    old = spawn(str(run.root))
    beaten_by(run, 0, old.pid)
    with alive(run, 1, WORLD, 60.0):
        assert old.wait(10) == -signal.SIGKILL


def test_other_processes_live_on(run: RunPaths, spawn: Spawn) -> None:
    reused, elsewhere, ours = spawn("another run"), spawn(str(run.root)), spawn(str(run.root))
    beaten_by(run, 0, reused.pid)  # a number that the kernel has given to somebody else
    beaten_by(run, 0, elsewhere.pid, host="node20")  # a number of another node
    beaten_by(run, 1, ours.pid)  # a sibling of this very attempt
    beaten_by(run, 2, ours.pid)
    end_predecessors(run, 1, "node2")
    assert [child.poll() for child in (reused, elsewhere, ours)] == [None, None, None]


def test_one_that_cannot_die_is_a_matter_for_the_admin(run: RunPaths, spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process stuck in a driver does not even hear SIGKILL."""
    stuck = spawn(str(run.root))
    beaten_by(run, 0, stuck.pid)
    monkeypatch.setattr(rank_module, "_GONE", 0.0)
    monkeypatch.setattr(rank_module.os, "kill", lambda *_: None)
    with pytest.raises(CptError, match="needs a reboot"), alive(run, 1, WORLD, 60.0):
        raise AssertionError("must not train")
    assert RankRecord.load(run.attempt(1).rank(3)).outcome == "crash"


SLEEPER = """
import sys, time
from pathlib import Path
from cpt.core.paths import RunPaths
from cpt.core.world import World
from slurm.rank import alive

def stuck():
    print("up", flush=True)
    while not Path(sys.argv[2]).exists():
        time.sleep(0.02)

with alive(RunPaths(Path(sys.argv[1])), 0, World(), 0.05):
    stuck()
print("lives", flush=True)
"""


def test_stacks_are_written_on_demand_and_the_rank_lives_on(run: RunPaths, tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", SLEEPER, str(run.root), str(tmp_path / "go")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert child.stdout and child.stdout.readline() == b"up\n"
        child.send_signal(STACKS)
        time.sleep(0.2)
        (tmp_path / "go").touch()
        said, stacks = child.communicate(timeout=30)
    finally:
        child.kill()
    assert (child.returncode, said) == (0, b"lives\n")
    assert stacks.count(b"(most recent call first)") == 2 and b"in stuck" in stacks and b"in _run" in stacks, "of all threads"
