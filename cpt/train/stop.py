"""Every way to stop has a name. Signals and triggers set a flag; all ranks agree between steps; the loop decides."""

from __future__ import annotations

import signal
from enum import IntEnum
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist


class StopReason(IntEnum):
    """Greater wins when ranks disagree."""

    none = 0
    save = 1  # not a stop: someone asked for a checkpoint now
    trigger = 2
    signal = 3
    done = 4


class StopWatch:
    """Listens on this rank; `agree` is collective. Construct in the main thread."""

    def __init__(self, triggers: Path) -> None:
        self.triggers = triggers
        self.signaled = False
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signaled = True

    def agree(self, finished: bool) -> StopReason:
        """What all ranks do now: the greatest reason that any of them has."""
        flag = torch.tensor([int(self._mine(finished))], device=torch.cuda.current_device())
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return StopReason(int(flag.item()))

    def _mine(self, finished: bool) -> StopReason:
        if finished:
            return StopReason.done
        if self.signaled:
            return StopReason.signal
        if dist.get_rank() == 0:  # one look at the file system is enough for all
            return StopReason.trigger if (self.triggers / "stop").exists() else self._save_asked()
        return StopReason.none

    def _save_asked(self) -> StopReason:
        if not (self.triggers / "save").exists():
            return StopReason.none
        (self.triggers / "save").unlink()
        return StopReason.save
