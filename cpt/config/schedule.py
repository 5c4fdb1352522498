"""The learning rate as a pure function of the step: training sets it, a login node can say it."""

from __future__ import annotations

import math

from cpt.config.training import Decay, DecayShape, ScheduleConfig

_STEEPNESS = 10.0
"""Of the inverse-square-root cooldown: how much of the fall comes first."""


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleConfig) -> float:
    """Rate of update `step` (0-based) out of `steps`: linear warm-up from peak/warmup to `peak`, then what `schedule.decay` says.

    cosine: min + (peak - min) * (1 + cos(pi * progress)) / 2 (Loshchilov & Hutter 2016, arXiv 1608.03983).
    wsd: `peak` until the last `decay_share`, then down by `decay_shape` (Hu et al. 2024, arXiv 2404.06395).
    inverse_sqrt: cooldown to a constant rate, then an annealing in the last `decay_share` (Ibrahim et al. 2024, arXiv 2403.08763, section 7).

    What constant, wsd and inverse_sqrt do before their last decay does not depend on where the budget ends: such a run can be extended, with
    shares that give the same steps of warm-up and cooldown, without changing what was trained.
    """
    warmup, floor = max(1, round(schedule.warmup_share * steps)), peak * schedule.min_lr_ratio
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.decay is Decay.constant:
        return peak
    if schedule.decay in (Decay.cosine, Decay.linear):
        progress = _progress(step, warmup, steps)
        return floor + (peak - floor) * ((1 + math.cos(math.pi * progress)) / 2 if schedule.decay is Decay.cosine else 1 - progress)
    end = steps - round(schedule.decay_share * steps)
    plateau = peak if schedule.decay is Decay.wsd else _cooled(min(step, end - 1), warmup, steps, peak, schedule)
    return plateau if step < end else _decayed(_progress(step, end, steps), plateau, floor, schedule.decay_shape)


def describe(steps: int, peak: float, schedule: ScheduleConfig) -> str:
    """The schedule in words, its shares as steps."""
    parts = [f"warm-up of {max(1, round(schedule.warmup_share * steps))} steps to {peak:.3g}"]
    if schedule.decay is Decay.inverse_sqrt:
        parts.append(f"cooldown of {round(schedule.cooldown_share * steps)} steps to {peak * schedule.constant_lr_ratio:.3g}")
    if schedule.decay in (Decay.wsd, Decay.inverse_sqrt) and (last := round(schedule.decay_share * steps)):
        parts.append(f"{schedule.decay_shape} in the last {last} to {peak * schedule.min_lr_ratio:.3g}")
    if schedule.decay in (Decay.cosine, Decay.linear):
        parts.append(f"down to {peak * schedule.min_lr_ratio:.3g} at step {steps}")
    return f"{schedule.decay}: {', '.join(parts)}"


def rewarmed(step: int, changed_at: int, rate_before: float, target: float, rewarm_steps: int) -> float:
    """Rate of update `step` after the schedule was changed before update `changed_at`: linear from `rate_before` to `target`, the new schedule's rate of
    this step, reached in update `changed_at + rewarm_steps - 1`. Without `rewarm_steps` the new rate is taken at once.
    """
    share = min(1.0, (step - changed_at + 1) / rewarm_steps) if rewarm_steps else 1.0
    return target if share == 1 else rate_before + (target - rate_before) * share


def _progress(step: int, start: int, stop: int) -> float:
    """Of a phase of the updates `start : stop`: its last update has 1."""
    return min(1.0, (step - start + 1) / max(1, stop - start))


def _cooled(step: int, warmup: int, steps: int, peak: float, schedule: ScheduleConfig) -> float:
    """peak + (constant - peak) * h(x) / h(1), h(x) = 1 / sqrt(1 + 10 x) - 1, over the cooldown; constant after it."""
    x = _progress(step, warmup, warmup + round(schedule.cooldown_share * steps))
    return peak * (1 + (schedule.constant_lr_ratio - 1) * _fall(x) / _fall(1.0))


def _fall(x: float) -> float:
    return 1 / math.sqrt(1 + _STEEPNESS * x) - 1


def _decayed(progress: float, high: float, low: float, shape: DecayShape) -> float:
    """From `high` to `low`. one_minus_sqrt: Hägele et al. 2024, arXiv 2405.18392; exponential: as Ibrahim et al. anneal."""
    if shape is DecayShape.exponential:
        return float(high * (low / high) ** progress)
    return low + (high - low) * (1 - (math.sqrt(progress) if shape is DecayShape.one_minus_sqrt else progress))
