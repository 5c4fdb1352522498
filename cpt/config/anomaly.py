"""Section `train.anomaly`: what happens to an update that should not be made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cpt.config.section import Section, positive
from cpt.core.errors import Problem


class AnomalyAction(StrEnum):
    """What is done about one update; each leaves an event in the journal."""

    note = "note"  # the update is made
    skip = "skip"  # it is not: the step and its batch are spent, weights and optimizer stay as they are
    rollback = "rollback"  # an earlier checkpoint is loaded, and what was read since is never read again
    stop = "stop"  # the run ends where its last checkpoint is and is held for a human


@dataclass(kw_only=True, slots=True)
class AnomalyConfig(Section):
    """An update is judged after its gradients are known and before any weight is touched.

    Not finite: loss or gradient norm is NaN or infinite. A spike: loss or gradient norm is more than `sigma` standard deviations above the mean of the
    last `window` updates that were made, of which at least half must be known. OLMo's SkipStepOptimizer skips by that rule (window 128, 6 sigma; the
    deviation below the mean, which it also takes, harms nothing). PaLM restarted about 100 steps earlier and left out 200 to 500 batches
    (Chowdhery et al. 2022, arXiv 2204.02311, section 5.1).
    """

    non_finite: AnomalyAction = AnomalyAction.skip
    spike: AnomalyAction = AnomalyAction.note
    sigma: float = 6.0
    window: int = 128
    """Updates."""
    max_skips: int = 5
    """In a row; the next one stops the run."""
    rollback_checkpoints: int = 1
    """Back to the n-th newest complete checkpoint."""
    max_rollbacks: int = 3
    """Of the whole run; the next one stops it."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "sigma", "rollback_checkpoints")
        if self.non_finite is AnomalyAction.note:
            why = "one such update makes every weight NaN"
            yield Problem(where="non_finite", what="is note", why=why, fix="non_finite=skip or train.anomaly.non_finite=rollback or stop")
        if self.window < 4:
            yield Problem(where="window", what=f"is {self.window}", why="a deviation needs some updates to be measured from", fix="window=128")
        for name in ("max_skips", "max_rollbacks"):
            if getattr(self, name) < 0:
                yield Problem(where=name, what=f"is {getattr(self, name)}", why="counts updates", fix=f"{name}=0")
