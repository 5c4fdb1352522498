"""Every way to stop has a name. Signals and triggers set a flag; all ranks agree between steps; the loop decides."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from cpt.train.saving import Writing


class StopReason(IntEnum):
    """Greater wins when ranks disagree."""

    none = 0
    stats = 1  # not a stop: someone asked what the next update does to each layer
    save = 2  # not a stop: someone asked for a checkpoint now
    trigger = 3
    deadline = 4
    signal = 5
    done = 6
    anomaly = 7  # nobody asked: all ranks found it in the same numbers


class StopWatch:
    """Listens on this rank; `agree` is collective. Construct in the main thread."""

    def __init__(self, triggers: Path, deadline: float | None = None) -> None:
        """`deadline`: when this job must begin to save, seconds since the epoch, for sites that send no signal."""
        self.triggers = triggers
        self.deadline = deadline
        self.signaled = False
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signaled = True

    def agree(self, finished: bool, writing: Sequence[Writing]) -> tuple[StopReason, list[Writing]]:
        """What all ranks do now, the greatest reason that any of them has; and, of each save under way, how far the rank is that is least far."""
        flags = torch.tensor([int(self._mine(finished)), *map(int, writing)], device=torch.cuda.current_device())
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        reason, *anyone = flags.tolist()
        return StopReason(reason), list(map(Writing, anyone))

    def _mine(self, finished: bool) -> StopReason:
        if finished:
            return StopReason.done
        if self.signaled:
            return StopReason.signal
        if self.deadline is not None and time.time() >= self.deadline:
            return StopReason.deadline
        if dist.get_rank() == 0:  # one look at the file system is enough for all
            return StopReason.trigger if (self.triggers / "stop").exists() else self._asked()
        return StopReason.none

    def _asked(self) -> StopReason:
        """What is done once and then forgotten."""
        for reason in (StopReason.save, StopReason.stats):
            if (self.triggers / reason.name).exists():
                (self.triggers / reason.name).unlink()
                return reason
        return StopReason.none
