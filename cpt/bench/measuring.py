"""Starts sides of `cpt bench data` (`rivals`), each in a process of its own with one thread, and takes what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from cpt.bench.rivals import Outcome
from cpt.core.errors import CptError

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1") | {"TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class Work:
    """`folder` holds the texts, and takes what is written."""

    side: str
    kind: str
    folder: Path
    argument: str


def measure(work: Work) -> Outcome:
    """Raises `CptError` with the last word of one that failed."""
    return measure_together([work])[0]


def measure_together(works: Sequence[Work]) -> list[Outcome]:
    """At the same time."""
    command = [sys.executable, "-m", "cpt.bench.rivals"]
    started = [
        subprocess.Popen([*command, *map(str, astuple(work))], env=os.environ | _ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for work in works
    ]
    said = [process.communicate() for process in started]
    for process, work, (_, errors) in zip(started, works, said, strict=True):
        if process.returncode:
            raise CptError(f"{work.side}, {work.kind}: {(errors.strip() or 'no word').splitlines()[-1]}")
    return [Outcome(**json.loads(output.splitlines()[-1])) for output, _ in said]
