"""The gate before a launch: what a plan may cost."""

from __future__ import annotations

from collections.abc import Iterator

from cpt.config.run import RunConfig
from cpt.core.errors import Problem, UserError
from cpt.core.records import PlanRecord


def require_budget(config: RunConfig, record: PlanRecord) -> None:
    """Raises `UserError` when the plan costs more than `budget` allows, or when a price is limited and an hour has none."""
    if problems := list(_problems(config, record)):
        raise UserError(problems)


def _problems(config: RunConfig, record: PlanRecord) -> Iterator[Problem]:
    budget, cluster = config.budget, config.cluster
    if 0 < budget.gpu_hours < record.gpu_hours:
        yield _over("gpu_hours", budget.gpu_hours, record.gpu_hours, "GPU-hours")
    if budget.price and not cluster.gpu_hour_price:
        why = "without the price of an hour nobody knows what the run costs"
        yield Problem(where="budget.price", what=f"is {budget.price:,.0f} {cluster.currency}", why=why, fix="cluster.gpu_hour_price=<price>")
    if 0 < budget.price < record.price:
        yield _over("price", budget.price, record.price, cluster.currency)


def _over(name: str, limit: float, planned: float, unit: str) -> Problem:
    return Problem(
        where=f"budget.{name}",
        what=f"is {limit:,.0f} {unit}",
        why=f"the plan comes to {planned:,.0f}, {planned / limit - 1:.0%} more",
        fix=f"fewer train.train_tokens, another layout (cpt plan --search), budget.{name}={planned:.0f}, or cpt launch --over-budget",
    )
