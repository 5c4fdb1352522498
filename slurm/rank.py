"""One rank's life around its training: a clean node before, heartbeats and stacks on demand during, its last word after."""

from __future__ import annotations

import errno
import faulthandler
import os
import shutil
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cpt.core.attempts import RankRecord
from cpt.core.errors import EXIT_DONE, EXIT_HOLD, EXIT_RESUME, CptError, UserError
from cpt.core.heartbeat import Heart, read_beat
from cpt.core.paths import RunPaths
from cpt.core.world import World

STACKS = signal.SIGQUIT
"""On which a rank writes the stacks of all its threads into its log, and lives on."""

_GONE = 30.0
"""Seconds that a killed process of an earlier attempt has for leaving its GPU and its ports."""


@contextmanager
def alive(run: RunPaths, attempt: int, world: World, interval: float) -> Iterator[Heart]:
    """From first to last word. Raises what training raises, once it is written down; `CptError` when an earlier attempt's ranks do not die."""
    paths = run.attempt(attempt)
    # A rank that a cut cable hid from its killers ends when it sees that its attempt has been closed.
    heart = Heart(paths.beat(world.node_name, world.rank), world.rank, world.node_name, interval, closed=paths.end)
    try:
        end_predecessors(run, attempt, world.node_name)
        faulthandler.register(STACKS, all_threads=True)
        with heart:
            yield heart
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # not `Exception`, which torch's CheckpointException is not
        record = _describe(error, world, heart.step, run)
        path = paths.rank(world.rank)
        if not path.is_file():
            with suppress(OSError):
                record.save(path)
        raise


def end_predecessors(run: RunPaths, attempt: int, node: str) -> None:
    """Kill what earlier attempts of this run left on this node, and wait until it is gone: it would hold GPU memory and ports.

    Their pids are in their heartbeats; a pid counts only while its command line still names this run.
    """
    for earlier in run.attempts():
        if earlier.number >= attempt:
            continue
        for path in earlier.beats.glob(f"{node}.[0-9]*"):
            if (beat := read_beat(path)) and _is_ours(beat.pid, run):
                _kill(beat.pid, run)


def _is_ours(pid: int, run: RunPaths) -> bool:
    with suppress(OSError):
        return pid != os.getpid() and str(run.root).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _kill(pid: int, run: RunPaths) -> None:
    deadline = time.monotonic() + _GONE
    while _is_ours(pid, run):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise CptError(f"process {pid} of an earlier attempt does not die (NCCL or GPU driver stuck?): this node needs a reboot")
        time.sleep(0.05)


def exit_code(code: int, world: World) -> int:
    """What a rank exits with. Of several, an orderly stop is no failure: its siblings, perhaps still writing, would be killed for it."""
    return EXIT_DONE if code in (EXIT_RESUME, EXIT_HOLD) and world.world_size > 1 else code


def signature(error: BaseException) -> str:
    """Exception type and innermost frame: equal for the same crash in another attempt, on another node."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"


def _describe(error: BaseException, world: World, step: int, run: RunPaths) -> RankRecord:
    """What the user must fix is `fatal`: no other attempt cures it. A full disk is such a thing."""
    message = str(error) if isinstance(error, CptError) else repr(error)
    outcome = "fatal" if isinstance(error, UserError) else "crash"
    if _disk_full(error):
        outcome, message = (
            "fatal",
            f"the disk of {run.root} is full; the last complete checkpoint is untouched. Free space or lower checkpoint.keep_last, then submit again ({message})",
        )
        for torn in run.torn_checkpoints():  # or there is no room for these words
            shutil.rmtree(torn, ignore_errors=True)
    return RankRecord(rank=world.rank, host=world.node_name, outcome=outcome, step=step, time=time.time(), signature=signature(error), message=message)


def _disk_full(error: BaseException | None) -> bool:
    """By the number of the error or of one that it came from."""
    while error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False
