"""Daemons by recorded pid: started in their own session, found again later, ended by that pid and no other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpt.core.artifacts import Artifact
from cpt.core.errors import CptError


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessRecord(Artifact):
    """One daemon. `started` is the kernel's start time of that pid, so that a reused number is never taken for it."""

    pid: int
    started: int


def spawn(command: Sequence[str], *, log: Path, record: Path, environment: Mapping[str, str]) -> None:
    """Start a daemon that outlives this process."""
    with open(log, "ab") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=dict(environment))
    remember(child.pid, record)


def remember(pid: int, record: Path) -> None:
    """Write down a daemon that started itself."""
    describe(pid).save(record)


def describe(pid: int) -> ProcessRecord:
    """A live process, so that it can be told from a later one of the same number."""
    return ProcessRecord(pid=pid, started=_start_time(pid) or 0)


def lives(noted: ProcessRecord) -> bool:
    """Whether it is still that process, and not a zombie."""
    return noted.started > 0 and _start_time(noted.pid) == noted.started


def is_running(record: Path) -> bool:
    """Whether the recorded daemon lives."""
    return record.is_file() and lives(ProcessRecord.load(record))


def end(record: Path, number: signal.Signals, timeout: float = 10.0) -> None:
    """Signal the recorded daemon, wait until it is gone, and by force after `timeout` seconds."""
    if is_running(record):
        pid = ProcessRecord.load(record).pid
        for attempt in (number, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, attempt)
            if _gone(record, pid, timeout):
                break
    record.unlink(missing_ok=True)


def kill_one(arguments: Sequence[str]) -> int:
    """SIGKILL the first live process on this machine whose command line ends with `arguments`; returns its pid. Raises `CptError` when there is none."""
    tail = b"\0".join(argument.encode() for argument in arguments) + b"\0"
    for path in sorted(Path("/proc").glob("[0-9]*/cmdline"), key=lambda path: int(path.parent.name)):
        with contextlib.suppress(OSError):
            if path.read_bytes().endswith(b"\0" + tail):
                os.kill(int(path.parent.name), signal.SIGKILL)
                return int(path.parent.name)
    raise CptError(f"no process runs {' '.join(arguments)}")


def wait_until(ready: Callable[[], bool], *, what: str, timeout: float) -> None:
    """Poll until `ready`; raises `CptError` naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise CptError(f"waited {timeout:.0f} s for {what}")
        time.sleep(0.1)


def _gone(record: Path, pid: int, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while is_running(record):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat; None when the process is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
