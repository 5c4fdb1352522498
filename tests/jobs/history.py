"""Run directories as a supervisor and its ranks leave them, written by their own classes on a clock that the test moves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from cpt.config.compose import compose_config
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_json, write_text
from cpt.core.attempts import Action, AttemptBegin, AttemptEnd, Ending, RankRecord, StopRecord, Suspects
from cpt.core.heartbeat import Phase
from cpt.core.paths import AttemptPaths, RunPaths
from cpt.tracking.journal import Journal
from slurm.submit import JobRecord

SETTINGS = ["model=tiny", "corpus=sample", "cluster=h100_ib", "train.train_tokens=2048000", "slurm.nodes=4", "slurm.spare_nodes=1"]
NODES = ("node1", "node2", "node3", "node4")


class History:
    """One run. `now` is the story's clock, in seconds since the epoch; it begins `ago` seconds before the real one."""

    def __init__(self, root: Path, ago: float, overrides: Sequence[str] = (), name: str = "tiny-0123456789") -> None:
        self.now = time.time() - ago
        self.config = compose_config([*SETTINGS, f"run_root={root}", *overrides])
        self.run = RunPaths(root / name)
        self.number, self.step, self.saved = -1, 0, 0
        write_text(self.run.config, to_yaml(self.config))
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now))
        write_json(self.run.run, {"fingerprint": name.rpartition("-")[2], "created": created})
        JobRecord(id="4711", scheduler="slurm", time=self.now).save(self.run.job)

    @property
    def attempt(self) -> AttemptPaths:
        return self.run.attempt(self.number)

    def begin(self, after: float, path: str = "submit", nodes: Sequence[str] = NODES, spares: Sequence[str] = ("node5",), start: float = 20.0) -> None:
        """A new attempt, `after` seconds later; its ranks take `start` seconds until they can train."""
        self.now += after
        self.number += 1
        begin = AttemptBegin(number=self.number, job="4711", restarts=0, nodes=list(nodes), step=self.saved, time=self.now, path=path, spares=list(spares))
        begin.save(self.attempt.begin)
        self.now += start
        with self._journal() as journal:
            journal.event("attempt_begin", resume_step=self.saved, world_size=32)
        self.step = self.saved

    def train(self, steps: int, seconds: float = 4.0, save_every: int = 10) -> None:
        """Steps with a save of two seconds after each `save_every`."""
        with self._journal() as journal:
            for _ in range(steps):
                self.now += seconds
                self.step += 1
                tokens = self.config.train.tokens_per_step
                values = {"train/loss": 3.0 - self.step / 1000, "train/step_seconds": seconds, "train/tokens_per_second": tokens / seconds}
                journal.metrics(self.step, self.step * 8, self.step * tokens, values | {"data/batch_crc32": float(self.step)})
                if self.step % save_every == 0:
                    self.now += 2
                    journal.event("checkpoint_saved", step=self.step, seconds=2.0, waited=2.0, bytes=10)
                    self.saved = self.step
                    write_json(self.run.latest, {"step": self.saved})

    def beats(self, phase: Phase = Phase.step, ages: Sequence[float] = (), late: float = 1.0) -> None:
        """A heartbeat of each of 32 ranks, `late` seconds before the real clock; `ages` are those of the first ranks."""
        for rank in range(32):
            at = time.time() - (ages[rank] if rank < len(ages) else late)
            host = f"node{rank // 8 + 1}"
            beat = {"rank": rank, "host": host, "pid": 1, "phase": phase, "step": self.step, "since": at, "time": at}
            write_json(self.attempt.beat(host, rank), beat)

    def crash(self, rank: int, message: str = "CUDA error: an illegal memory access", signature: str = "RuntimeError at loop.py:40 in train") -> None:
        record = RankRecord(rank=rank, host=f"node{rank // 8 + 1}", outcome="crash", step=self.step, time=self.now, signature=signature, message=message)
        record.save(self.attempt.rank(rank))

    def end(self, ending: Ending, action: Action, message: str, nodes: Sequence[str] = (), rank: int = -1, after: float = 5.0) -> None:
        self.now += after
        AttemptEnd(
            number=self.number, ending=ending, action=action, code=143, message=message, step=self.saved, time=self.now, nodes=list(nodes), rank=rank
        ).save(self.attempt.end)

    def finish(self) -> None:
        self.saved = self.step
        write_json(self.run.latest, {"step": self.saved})
        StopRecord(reason="done", step=self.step, attempt=self.number).save(self.run.stopped)
        self.end(Ending.done, Action.done, f"finished at step {self.step}")

    def suspect(self, excluded: dict[str, str], blamed: dict[str, list[str]]) -> None:
        Suspects(blamed=blamed, excluded=excluded).save(self.run.suspects)

    def _journal(self) -> Journal:
        return Journal(self.run, self.number, clock=lambda: self.now)
