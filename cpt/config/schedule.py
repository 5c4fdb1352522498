"""The learning rate as a pure function of the step: training sets it, a login node can say it."""

from __future__ import annotations

import math

from cpt.config.training import Decay, ScheduleConfig


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleConfig) -> float:
    """Rate of update `step` (0-based) out of `steps`: linear warm-up from peak/warmup, then decay to peak * min_lr_ratio.

    Cosine as in Loshchilov & Hutter (2016): min + (peak - min) * (1 + cos(pi * progress)) / 2.
    """
    warmup = max(1, round(schedule.warmup_share * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.decay is Decay.constant:
        return peak
    floor = peak * schedule.min_lr_ratio
    progress = min(1.0, (step - warmup + 1) / max(1, steps - warmup))
    shape = (1 + math.cos(math.pi * progress)) / 2 if schedule.decay is Decay.cosine else 1 - progress
    return floor + (peak - floor) * shape
