"""Updates that should not be made: found before a weight is touched, by the same rule and the same numbers on every rank."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cpt.config.anomaly import AnomalyAction, AnomalyConfig
from cpt.train.state import TrainState


class Kind(StrEnum):
    """What is wrong with an update."""

    non_finite = "non_finite"
    loss_spike = "loss_spike"
    grad_norm_spike = "grad_norm_spike"


@dataclass(frozen=True, kw_only=True, slots=True)
class Anomaly:
    """One update, judged. `mean` and `limit` of the quantity that stood out, when it was a spike."""

    kind: Kind
    action: AnomalyAction
    why: str
    mean: float = 0.0
    limit: float = 0.0

    def stop(self, why: str) -> Anomaly:
        """The same, but nothing may be done about it any more."""
        return dataclasses.replace(self, action=AnomalyAction.stop, why=f"{self.why}; {why}")


def judge(config: AnomalyConfig, state: TrainState, loss: float, grad_norm: float) -> Anomaly | None:
    """What is done about the update that comes next; None makes it.

    Pure. Loss and gradient norm come out of all-reduces, so that every rank decides the same.
    """
    found = _found(config, state, loss, grad_norm)
    if found is None:
        return None
    if found.action is AnomalyAction.skip and state.skips >= config.max_skips:
        return found.stop(f"{state.skips} updates in a row were skipped before it (train.anomaly.max_skips)")
    if found.action is AnomalyAction.rollback and state.rollbacks >= config.max_rollbacks:
        return found.stop(f"the run was rolled back {state.rollbacks} times before it (train.anomaly.max_rollbacks)")
    return found


def _found(config: AnomalyConfig, state: TrainState, loss: float, grad_norm: float) -> Anomaly | None:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        return Anomaly(kind=Kind.non_finite, action=config.non_finite, why=f"loss {loss:.6g}, gradient norm {grad_norm:.6g}")
    for kind, name, value, known in (
        (Kind.loss_spike, "loss", loss, state.losses),
        (Kind.grad_norm_spike, "gradient norm", grad_norm, state.grad_norms),
    ):
        mean, limit = threshold(known, config)
        if value > limit:
            why = f"{name} {value:.6g} is above {limit:.6g}, {config.sigma:g} standard deviations over the mean {mean:.6g} of {len(known)} updates"
            return Anomaly(kind=kind, action=config.spike, why=why, mean=mean, limit=limit)
    return None


def threshold(known: Sequence[float], config: AnomalyConfig) -> tuple[float, float]:
    """(mean, least value that is not a spike); infinite until half of the window is known."""
    if len(known) < max(2, config.window // 2):
        return math.nan, math.inf
    mean = statistics.fmean(known)
    return mean, mean + config.sigma * statistics.stdev(known, mean)
