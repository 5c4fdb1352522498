"""Where the time of a step goes, and how fast training is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Speedometer:
    """Wall clock of one step by phase, as this rank sees it: a slow feed shows as `data`, a slow peer as `forward_backward`, which ends in an all-reduce."""

    def __init__(self, flops_per_token: float, peak_flops: float, ranks: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`flops_per_token`: forward and backward, causal convention (`cpt.plan.flops`); `peak_flops`: of one rank, per second."""
        self.flops_per_token, self.peak_flops, self.ranks, self.clock = flops_per_token, peak_flops, ranks, clock
        self.begin()

    def begin(self) -> None:
        """A step begins."""
        self.began = self.last = self.clock()
        self.phases: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """What was done since the last lap was `phase`."""
        now = self.clock()
        self.phases[phase] = now - self.last
        self.last = now

    def values(self, tokens: int) -> dict[str, float]:
        """For a row of the journal: seconds of the step and of its phases, tokens per second, MFU (causal convention, `cluster.hardware.peak_flops`)."""
        seconds = max(self.clock() - self.began, 1e-9)
        found = {
            "train/step_seconds": seconds,
            "train/tokens_per_second": tokens / seconds,
            "train/mfu": tokens / seconds * self.flops_per_token / (self.peak_flops * self.ranks),
        }
        return found | {f"time/{phase}": value for phase, value in self.phases.items()}

    def shown(self, values: Mapping[str, float]) -> str:
        """The same for people."""
        rate = values["train/tokens_per_second"]
        return f"{rate:.0f} tokens/s  {rate * self.flops_per_token / self.ranks / 1e12:.3g} TFLOP/s a rank  MFU {values['train/mfu']:.1%}"
