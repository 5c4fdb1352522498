"""Reads the node that it runs on. A tool or folder that is missing is a fact about the node, never an error."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from cpt.core.errors import UserError
from cpt.topology.adapters import Port, parse_ibstat, read_sysfs, said
from cpt.topology.machine import Interface, Machine, machine
from cpt.topology.matrix import Matrix, parse_matrix
from cpt.topology.names import natural

type Run = Callable[[Sequence[str]], str]
"""A command -> its output. Raises `OSError` or `subprocess.SubprocessError`."""

_SECONDS = 60
"""nvidia-smi initializes every GPU first, which takes a while without its persistence daemon."""


def run(argv: Sequence[str]) -> str:
    """What a command prints. Raises as `Run` says."""
    return subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=True, stdin=subprocess.DEVNULL).stdout


def discover(root: Path = Path("/"), execute: Run = run) -> Machine:
    """This node: `nvidia-smi topo -m`, adapters and interfaces below `<root>/sys`, `ibstat` where the kernel shows no adapters."""
    missing: list[str] = []
    matrix = _matrix(execute, missing)
    ports = read_sysfs(root) or _ibstat(execute, missing)
    return machine(matrix, ports, read_interfaces(root), missing)


def read_interfaces(root: Path = Path("/")) -> tuple[Interface, ...]:
    """Interfaces on hardware, and bonds of them: no loopback, bridge or container."""
    folder = root / "sys/class/net"
    routes = _default_routes(root)
    found = [path for path in (folder.iterdir() if folder.is_dir() else ()) if (path / "device").exists() or (path / "bonding").exists()]
    return tuple(
        Interface(
            name=path.name,
            up=said(path / "operstate") == "up",
            speed=max(0.0, _number(said(path / "speed")) / 1000),
            default_route=path.name in routes,
            part_of=(path / "master").resolve().name if (path / "master").exists() else "",
        )
        for path in sorted(found, key=lambda path: natural(path.name))
    )


def _matrix(execute: Run, missing: list[str]) -> Matrix | None:
    try:
        return parse_matrix(execute(["nvidia-smi", "topo", "-m"]))
    except (OSError, subprocess.SubprocessError) as error:
        missing.append(f"nvidia-smi: {_reason(error)}")
    except UserError as error:
        missing.append(f"nvidia-smi: {error.problems[0].what}")
    return None


def _ibstat(execute: Run, missing: list[str]) -> tuple[Port, ...]:
    try:
        return parse_ibstat(execute(["ibstat"]))
    except (OSError, subprocess.SubprocessError) as error:
        missing.append(f"no adapter in /sys/class/infiniband, and ibstat: {_reason(error)}")
    except UserError as error:
        missing.append(f"ibstat: {error.problems[0].what}")
    return ()


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, FileNotFoundError):
        return "not installed"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer in {_SECONDS} s"
    if isinstance(error, subprocess.CalledProcessError):
        words = (error.stdout or "").strip() or (error.stderr or "").strip()
        return words.splitlines()[0][:200] if words else f"exit code {error.returncode}"
    return str(error)


def _default_routes(root: Path) -> set[str]:
    rows = [line.split() for line in said(root / "proc/net/route").splitlines()[1:]]
    return {row[0] for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
