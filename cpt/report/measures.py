"""Numbers that several sections show, derived from the facts and from nothing else."""

from __future__ import annotations

from statistics import median

from cpt.core import units
from cpt.report.facts import Facts
from cpt.tracking.goodput import Goodput, goodput


def spent(facts: Facts) -> Goodput | None:
    """Where the time since the submission went; None when no attempt is on record."""
    if not facts.lifetimes:
        return None
    begun = facts.lifetimes[0][0].time
    submitted = units.epoch(facts.record.created) if facts.record else 0.0
    return goodput(facts.lifetimes, facts.rows, facts.events, min(submitted or begun, begun), facts.attempts[-1].end)


def world_size(facts: Facts) -> int:
    """Ranks as training counted them, else as configured."""
    seen = [int(attempt.begin_fields["world_size"]) for attempt in facts.attempts if "world_size" in attempt.begin_fields]
    return seen[-1] if seen else facts.config.slurm.world_size


def device_word(facts: Facts) -> str:
    """What a rank computes on."""
    return "GPU" if facts.config.cluster.gpus_per_node > 0 else "CPU rank"


def rank_hours(facts: Facts) -> float:
    """Ranks times hours over all attempts, start-up and lost work included."""
    ranks = world_size(facts)
    return sum((attempt.end - attempt.begin) * int(attempt.begin_fields.get("world_size", ranks)) for attempt in facts.attempts) / 3600


def wall_seconds(facts: Facts) -> float:
    """From the first attempt's begin to the last one's end."""
    return facts.attempts[-1].end - facts.attempts[0].begin if facts.attempts else 0.0


def step_seconds(facts: Facts) -> float | None:
    """Median over the steps that count."""
    values = [value for _, value in facts.series("train/step_seconds")]
    return median(values) if values else None


def tokens_per_second(facts: Facts) -> float | None:
    """Tokens of a step over its median time."""
    seconds = step_seconds(facts)
    return facts.config.train.tokens_per_step / seconds if seconds else None


def utilization(facts: Facts) -> float | None:
    """Model FLOPs utilization: causal-attention convention as in the plan, against the cluster's stated peak."""
    rate = tokens_per_second(facts)
    if rate is None or facts.plan is None:
        return None
    return rate * facts.plan.flops_per_token / (facts.config.cluster.hardware.peak_flops * world_size(facts))


def consumed_shares(facts: Facts) -> dict[str, float]:
    """Share of all tokens read so far per source, superseded steps not counted twice."""
    last = {name: points[-1][1] for name in facts.groups if (points := facts.series(f"data/tokens/{name}"))}
    total = sum(last.values())
    return {name: value / total for name, value in last.items()} if total else {}


def consumed_tokens(facts: Facts) -> int:
    """Tokens of all steps that count."""
    return max((row.consumed_tokens for row in facts.rows if not row.superseded), default=0)


def last_step(facts: Facts) -> int:
    """Last finished step that counts."""
    return max((row.step for row in facts.rows if not row.superseded), default=0)
