"""One node looks at itself before ranks start on it, and writes down what it found: the node's half of the preflight.

Sixty nodes start this at the same moment, often from one file server: it imports nothing of Hydra, of torch, or of tables.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from cpt.core.artifacts import Artifact
from cpt.core.paths import AttemptPaths, RunPaths

PACKAGES = ("cpt", "torch", "megatron-core", "transformer-engine", "flash-attn", "flash-attn-4")

_CLOCK = 10.0
"""Seconds that a node's clock may differ from the file system's. Beyond that logs cannot be put in order; at 300 munge, and so SLURM, refuses."""

_SMI = ("nvidia-smi", "--query-gpu=index,name,driver_version,memory.total,memory.used,ecc.errors.uncorrected.volatile.total", "--format=csv,noheader,nounits")

_IDLE = 0.1
"""Share of a GPU's memory that may be in use before ranks start; more belongs to somebody who should be gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreflightRequest(Artifact):
    """What every node is asked (`preflight/request`). `token` comes back in the report: it was read, and it is of this preflight."""

    token: str
    gpus: int
    """Expected on each node; 0 does not look for any."""
    free_bytes: int
    """That the run's file system should still have; 0 when nobody has planned."""
    health_check: list[str]
    seconds: float
    """For the whole preflight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeReport(Artifact):
    """One node before ranks start on it (`preflight/<node>.json`). Fit when `problems` is empty."""

    node: str
    """SLURM's name of it."""
    host: str
    token: str
    gpus: list[str]
    """Name of each GPU that answers; empty also where nvidia-smi is not installed."""
    clock_skew: float
    """Seconds that this node's clock is ahead of the shared file system's."""
    free_bytes: int
    versions: dict[str, str]
    """Package -> version, from metadata; nothing is imported."""
    attention: str
    """What computes attention on this node."""
    boot: str
    """The kernel's id of this boot: another one next time means that the node was restarted in between."""
    uptime: float
    """Seconds."""
    seconds: float
    """That this report took."""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Gpus:
    """What nvidia-smi says."""

    names: list[str]
    driver: str = ""
    problems: list[str] = field(default_factory=list)


def request_path(attempt: AttemptPaths) -> Path:
    """Of the request; reports end in `.json`."""
    return attempt.preflight / "request"


def report_path(attempt: AttemptPaths, node: str) -> Path:
    """Of one node's report."""
    return attempt.preflight / f"{node}.json"


def node_name() -> str:
    """SLURM's name of this node, which need not be its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def report(run: RunPaths, number: int) -> NodeReport:
    """Look, and leave the report in the attempt's folder. Raises `MissingInput` when nobody has asked."""
    started, attempt = time.monotonic(), run.attempt(number)
    request = PreflightRequest.load(request_path(attempt))
    skew = clock_skew(attempt.preflight)
    free = shutil.disk_usage(run.root).free
    gpus = look_at_gpus(request.gpus) if request.gpus else Gpus([])
    found = NodeReport(
        node=node_name(),
        host=socket.gethostname(),
        token=request.token,
        gpus=gpus.names,
        clock_skew=round(skew, 3),
        free_bytes=free,
        versions=versions() | ({"driver": gpus.driver} if gpus.driver else {}),
        attention=attention(len(gpus.names)),
        boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        uptime=float(Path("/proc/uptime").read_text().split()[0]),
        seconds=round(time.monotonic() - started, 3),
        problems=[*clock_problems(skew), *space_problems(free, request.free_bytes), *gpus.problems, *ailments(request.health_check, request.seconds)],
    )
    found.save(report_path(attempt, found.node))
    return found


def clock_skew(folder: Path) -> float:
    """This node's clock minus that of whoever keeps `folder`, by the time stamp that a new file gets there; within half the time that writing it takes."""
    path = folder / f".clock.{node_name()}"
    before = time.time()
    path.write_text("tick")
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        stamp = os.fstat(file.fileno()).st_mtime
    skew, width = (before + time.time()) / 2 - stamp, time.time() - before
    path.unlink()
    return skew if abs(skew) > width / 2 else 0.0


def clock_problems(skew: float) -> list[str]:
    """At most one."""
    return [f"clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"] if abs(skew) > _CLOCK else []


def space_problems(free: int, needed: int) -> list[str]:
    """At most one."""
    return [f"{free / 1e9:.1f} GB free where the run lies, two checkpoints take {needed / 1e9:.1f} GB"] if free < needed else []


def look_at_gpus(expected: int) -> Gpus:
    """All GPUs there, none with errors that memory could not correct, none in use. XIDs are left to `cluster.health_check`: they take root.

    Without nvidia-smi nothing can be said, but that the other nodes have it: the driver's version is compared like a package's.
    """
    if shutil.which(_SMI[0]) is None:
        return Gpus([], "none")
    code, text = _run(_SMI, 30.0)
    if code:
        return Gpus([], "unknown", [f"nvidia-smi: {_first_line(text) or f'ended with {code}'}"])
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") >= 5]
    problems = [] if len(rows) >= expected else [f"{len(rows)} of {expected} GPUs"]
    for index, _, _, total, used, errors in (row[:6] for row in rows):
        if errors.isdigit() and int(errors):
            problems.append(f"GPU {index}: {errors} memory errors that ECC could not correct")
        if used.isdigit() and total.isdigit() and int(used) > _IDLE * int(total):
            problems.append(f"GPU {index}: {int(used) / 1024:.0f} of {int(total) / 1024:.0f} GiB in use by somebody else")
    return Gpus([row[1] for row in rows], rows[0][2] if rows else "unknown", problems)


def ailments(command: Sequence[str], seconds: float) -> list[str]:
    """What the site's own check says when it fails: its first line."""
    if not command:
        return []
    code, text = _run(command, 0.8 * seconds)  # so that the report still comes in time
    return [f"{Path(command[0]).name}: {_first_line(text) or f'ended with {code}'}"] if code else []


def versions() -> dict[str, str]:
    """Of the packages that decide about results, as far as they are installed where ranks run."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def attention(gpus: int) -> str:
    """What `train.attention=auto` finds installed here; `cpt.engine.kernels` decides, by device and precision too."""
    for package in ("flash-attn-4", "flash-attn"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            if gpus:
                return f"{package} {metadata.version(package)}"
    return "torch SDPA, fused" if gpus else "torch SDPA, CPU"


def _run(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Exit code and what it says, errors only when nothing else; 124 when it did not end in time, 127 when it cannot be started."""
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    except OSError as error:
        return 127, os.strerror(error.errno or 0)
    try:
        said, complained = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # with all that it started, which would keep our pipes open
        child.wait()
        return 124, f"no answer in {seconds:.0f} s"
    return child.returncode, said if said.strip() else complained


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
