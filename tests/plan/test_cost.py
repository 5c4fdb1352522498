"""What comes on top of steps: saves, failures, production; money and energy; the gate before a launch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.core.errors import UserError
from cpt.core.records import PlanRecord
from cpt.plan import plan, unprepared
from cpt.plan.budget import require_budget
from cpt.plan.cost import REASONS, gpu_hours, reliability, saving


def config(*overrides: str) -> RunConfig:
    return compose_config(["experiment=ellama_70b", *overrides])


def planned(*overrides: str) -> PlanRecord:
    run = config(*overrides)
    return plan(run, unprepared(run))


def test_reasons_add_up_to_the_bill() -> None:
    record = planned("cluster.gpu_hour_price=2.5", "slurm.spare_nodes=2")
    assert list(record.cost) == list(REASONS)
    assert sum(record.cost.values()) == pytest.approx(record.gpu_hours)
    assert record.price == pytest.approx(2.5 * record.gpu_hours)
    assert record.megawatt_hours == pytest.approx(record.gpu_hours * 1275 / 1e6)
    share = record.cost["spares"] / (record.gpu_hours - record.cost["production"] - record.cost["spares"])
    assert 1 / 60 < share < 2 / 60, "two nodes beside sixty, now and then at work"
    assert record.hours * 480 == pytest.approx(record.gpu_hours - 1.2 * record.cost["spares"])


def test_production_multiplies_all_of_it() -> None:
    plain, slow = planned("cluster.rates.production=1.0"), planned("cluster.rates.production=1.5")
    assert plain.cost["production"] == 0.0
    assert slow.gpu_hours == pytest.approx(1.5 * plain.gpu_hours)
    assert slow.step_seconds == plain.step_seconds, "a step is measured by itself"


def test_a_save_takes_what_the_slower_of_node_and_file_system_takes() -> None:
    many, few = saving(config()), saving(config("slurm.nodes=4"))
    assert many.bytes == 12 * 70_553_706_496
    assert many.seconds == pytest.approx(many.bytes / 20e9 + many.bytes / 480 / 25e9)
    assert few.seconds == pytest.approx(many.bytes / 16e9 + many.bytes / 32 / 25e9), "four nodes of 4 GB/s"
    assert many.blocking == pytest.approx(many.bytes / 480 / 25e9)
    waits = saving(config("checkpoint.asynchronous=false"))
    assert (waits.blocking, waits.lag) == (waits.seconds, 0.0)


def test_failures_fall_back_to_the_fast_tier_where_there_is_one() -> None:
    slow, fast = reliability(config(), 25.0), reliability(config("checkpoint.fast_folder=/local", "checkpoint.fast_interval=20"), 25.0)
    assert slow is not None
    assert fast is not None
    assert (slow.interval_seconds, fast.interval_seconds) == (200 * 25.0, 20 * 25.0)
    assert slow.repair_seconds == 2 * 86_400, "a lost node is back with the next job"


def test_without_failures_saves_alone_cost() -> None:
    run = config("cluster.rates.failures_per_node_day=0", "cluster.rates.production=1")
    assert reliability(run, 25.0) is None
    cost = gpu_hours(run, 25.0)
    assert cost["failures"] == cost["spares"] == 0.0
    assert cost["saves"] == pytest.approx(424 * saving(run).blocking * 480 / 3600)
    assert planned("cluster.rates.failures_per_node_day=0").mttf_hours == 0.0


def test_a_budget_ends_where_the_plan_does() -> None:
    """To the GPU-hour: what is covered passes, an hour less does not; without a budget all passes."""
    record = planned()
    passed = []
    for limit in (0, record.gpu_hours + 1, record.gpu_hours - 1):
        try:
            require_budget(config(f"budget.gpu_hours={limit}"), record)
            passed.append(True)
        except UserError:
            passed.append(False)
    assert passed == [True, True, False]


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["budget.gpu_hours=300000"], "budget.gpu_hours"),
        (["budget.price=500000", "cluster.gpu_hour_price=2"], "budget.price"),
        (["budget.price=500000"], "budget.price"),
    ],
)
def test_a_plan_beyond_the_budget_is_refused_with_by_how_much(overrides: list[str], where: str) -> None:
    run = config(*overrides)
    with pytest.raises(UserError) as caught:
        require_budget(run, plan(run, unprepared(run)))
    (problem,) = caught.value.problems
    assert problem.where == where
    assert "--over-budget" in problem.fix or problem.fix == "cluster.gpu_hour_price=<price>"


def test_a_budget_is_no_part_of_what_a_run_is() -> None:
    from cpt.config.fingerprint import fingerprint

    assert fingerprint(config("budget.gpu_hours=1", "cluster/rates=cpu")) == fingerprint(config())


def test_a_budget_below_zero_is_no_budget() -> None:
    with pytest.raises(UserError, match=r"budget\.price"):
        config("budget.price=-1")


def test_stages_hold_what_the_fullest_rank_is_the_most_of() -> None:
    record = planned()
    assert len(record.stages) == 4
    assert record.memory == record.stages[0]
    assert replace(record, stages=record.stages[::-1]).memory == record.stages[0]
