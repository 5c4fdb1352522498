"""Where the seconds of a step go: data, forward, backward, optimizer, other. Hooks on torch modules and on the calls that update; all are taken off again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch

PHASES = ("data", "forward", "backward", "optimizer", "other")


class Phases:
    """Attach, run steps, `stop`. `other` is what happens between a step's begin and its first forward, and after its optimizer.

    The backward pass lasts from one forward's end to the next forward, or to the optimizer. On CUDA every boundary waits for the
    device, which costs overlap: the steps in which phases are taken are not those that are timed.
    """

    def __init__(self, modules: Sequence[torch.nn.Module], updates: Sequence[tuple[Any, str]]) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._phase, self._since = "other", _now()
        self._hooks = [module.register_forward_pre_hook(lambda *_: self.enter("forward")) for module in modules]
        self._hooks += [module.register_forward_hook(lambda *_: self.enter("backward")) for module in modules]
        self._patches = [mock.patch.object(owner, name, self._optimizing(getattr(owner, name))) for owner, name in updates]
        for patch in self._patches:
            patch.start()

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
        for patch in self._patches:
            patch.stop()
        return self.seconds

    def _optimizing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter("optimizer")
            found = call(*args, **kwargs)
            self.enter("other")
            return found

        return timed


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
