"""What every bench answers: a table for people and the same numbers for machines, with the command and the machine that made them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from cpt.core.artifacts import write_text
from cpt.core.errors import Problem, UserError

Say = Callable[[str], object]
"""Takes a line of progress."""

_LIBRARIES = ("torch", "megatron-core", "transformers", "transformer-engine", "flash-attn", "nvidia-dali-cuda130")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """`rows` are cells as text, below `columns`; `data` is everything measured, in SI units, for the JSON file; `notes` are said below the table."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    data: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def save(self, path: Path, command: str, options: Mapping[str, str]) -> None:
        """Whole or not at all, with what made it."""
        made_by = {"command": command, "options": dict(options), "machine": machine()}
        write_text(path, json.dumps({**made_by, "notes": self.notes, **self.data}, indent=1) + "\n")


def machine() -> dict[str, str]:
    """Name -> fact: processor, cores that this process may use, GPUs, versions. Imports none of the libraries."""
    cpu = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    facts = {
        "processor": cpu[0] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "GPUs": _gpus() or "none",
        "python": platform.python_version(),
    }
    installed = {found.metadata["Name"].lower() for found in metadata.distributions() if found.metadata["Name"]}
    return facts | {name: metadata.version(name) for name in _LIBRARIES if name in installed}


def take_options(known: Mapping[str, str], arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(a bench's own options over their defaults, the overrides that are left)."""
    given = dict(argument.partition("=")[::2] for argument in arguments if argument.partition("=")[0] in known)
    return {**known, **given}, [argument for argument in arguments if argument.partition("=")[0] not in known]


def whole_number(options: Mapping[str, str], name: str, least: int = 1) -> int:
    """An option as a number. Raises `UserError` for anything else."""
    if options[name].isdigit() and int(options[name]) >= least:
        return int(options[name])
    raise UserError(Problem(where=name, what=f"is {options[name]!r}", why=f"is a whole number, at least {least}", fix=f"{name}={max(least, 5)}"))


def _gpus() -> str:
    try:
        listed = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return ", ".join(listed.stdout.split("\n")).strip(", ") if listed.returncode == 0 else ""
