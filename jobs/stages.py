"""Running verbs one after the other, each in its own process, showing the command and the time it took."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpt.core import units
from cpt.core.artifacts import write_json
from jobs.console import open_console


class Stages:
    """Prints a headline a stage; `demo.json` in the run root keeps the seconds of each."""

    def __init__(self, root: Path) -> None:
        self.root, self.seconds = root, dict[str, float]()
        self.console = open_console()

    def run(self, title: str, *command: str) -> None:
        """One verb. Ends the whole process with the verb's exit code when it fails."""
        with self.timed(title, "cpt " + shlex.join(command)):
            code = subprocess.run([sys.executable, "-m", "jobs.cli", *command], check=False).returncode
        if code:
            self.console.print(f"\nstopped: `cpt {shlex.join(command)}` ended with exit code {code}; run it alone to see more")
            sys.exit(code)

    @contextmanager
    def timed(self, title: str, command: str = "") -> Iterator[None]:
        """Headline before, duration after."""
        self.console.print(f"\n== {len(self.seconds) + 1}. {title}" + (f"\n$ {command}" if command else ""), style="bold")
        begun = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - begun
        self.console.print(f"   {title}: {units.duration(self.seconds[title])}", style="dim")
        write_json(self.root / "demo.json", {"stages": self.seconds})

    def say(self, line: str) -> None:
        """One line under the headline; nothing when there is nothing to say."""
        if line:
            self.console.print(f"   {line}")

    def finish(self, report: str) -> None:
        """Seconds by stage, and where the report is."""
        self.console.print("\nseconds by stage")
        for title, seconds in self.seconds.items():
            self.console.print(f"  {units.duration(seconds):>12}  {title}")
        self.console.print(f"  {units.duration(sum(self.seconds.values())):>12}  in all\n\nreport: {report}", style="bold")


def scheduler(without_slurm: bool) -> tuple[bool, str]:
    """Whether a real SLURM can be had, and what is used instead when it cannot."""
    from slurm.devcluster import can_run

    able, reason = (False, "as asked") if without_slurm else can_run()
    return able, "" if able else f"no SLURM here ({reason}): submitit's local executor, and a rank is killed instead of a node"
