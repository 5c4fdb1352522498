"""The processes of one contestant, asked by lines of JSON; one for each rank, and they all do the same at the same time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


class Failed(RuntimeError):
    """A contestant that cannot do this here; the text is the last of what it said."""


class Processes:
    """Started by the constructor; `close` ends them and waits."""

    def __init__(self, kind: str, folder: Path, ranks: int, threads: str) -> None:
        self.kind, self.folder = kind, folder
        port = _free_port()
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        self.processes = []
        for rank in range(ranks):
            world = {"rank": rank, "local_rank": rank, "world_size": ranks, "master_port": port}
            with self._log(rank).open("w") as log:
                command = [sys.executable, "-m", "cpt.bench.contestant", kind, str(folder), json.dumps(world)]
                self.processes.append(
                    subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)
                )

    def ask(self, do: str, **arguments: Any) -> Any:
        """What rank 0 answers. Raises `Failed` when a rank ended instead."""
        line = json.dumps({"do": do, **arguments}) + "\n"
        try:
            for process in self.processes:
                (process.stdin or sys.stdout).write(line)
            answers = [process.stdout.readline() if process.stdout else "" for process in self.processes]
        except BrokenPipeError:
            answers = [""]
        if not all(answers):
            raise Failed(self._last_words())
        return json.loads(answers[0])

    def close(self) -> None:
        """No more questions. Raises `Failed` for the one that only had to do its work and end."""
        for process in self.processes:
            if process.stdin and not process.stdin.closed:
                process.stdin.close()
        codes = [process.wait() for process in self.processes]
        if self.kind == "weights" and any(codes):
            raise Failed(self._last_words())

    def _log(self, rank: int) -> Path:
        return self.folder / f"{self.kind}.{rank}.log"

    def _last_words(self) -> str:
        texts = [self._log(rank).read_text().strip() for rank in range(len(self.processes))]
        return next((text[-2000:] for text in texts if text), "ended without a word")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
