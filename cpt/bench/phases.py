"""Where the seconds of a step go: data, forward, backward, optimizer, other. Hooks on any torch module and optimizer; nothing of theirs is changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

PHASES = ("data", "forward", "backward", "optimizer", "other")


class Phases:
    """Attach, run steps, `stop`. `other` is what happens between a step's begin and its first forward, and after its optimizer.

    The backward pass lasts from one forward's end to the next forward, or to the optimizer. On CUDA every boundary waits for the
    device, which costs overlap: the steps in which phases are taken are not those that are timed.
    """

    def __init__(self, modules: Sequence[torch.nn.Module], optimizer: Any) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "other", _now()
        self._hooks = [module.register_forward_pre_hook(lambda *_: self.enter("forward")) for module in modules]
        self._hooks += [module.register_forward_hook(lambda *_: self.enter("backward")) for module in modules]
        self._optimizer, self._step = optimizer, optimizer.step
        optimizer.step = self._optimize

    def enter(self, phase: str) -> None:
        """The time until now belongs to the phase before."""
        now = _now()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def stop(self) -> dict[str, float]:
        """Seconds by phase; the hooks are gone."""
        self.enter("other")
        for hook in self._hooks:
            hook.remove()
        self._optimizer.step = self._step
        return self.seconds

    def _optimize(self, *args: Any, **kwargs: Any) -> Any:
        self.enter("optimizer")
        found = self._step(*args, **kwargs)
        self.enter("other")
        return found


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
