"""The schedule as a pure function of the step."""

from __future__ import annotations

import dataclasses
import itertools
import random
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.schedule import describe, learning_rate, rewarmed
from cpt.config.training import Decay, DecayShape, ScheduleConfig
from cpt.core.errors import UserError

PEAK = 1e-3
FILES = sorted(path.stem for path in Path("hydra_conf/schedule").glob("*.yaml"))


def schedule_of(name: str) -> ScheduleConfig:
    return compose_config(["experiment=demo", f"schedule={name}"]).schedule


def rates(schedule: ScheduleConfig, steps: int = 100) -> list[float]:
    return [learning_rate(step, steps, PEAK, schedule) for step in range(steps)]


def drawn(dice: random.Random) -> ScheduleConfig:
    """Any schedule that is valid."""
    warmup, cooldown, decay = (dice.choice([0.0, dice.random() / 3]) for _ in range(3))
    floor = dice.uniform(0.001, 0.5)
    return ScheduleConfig(
        decay=dice.choice(list(Decay)),
        warmup_share=warmup,
        min_lr_ratio=floor,
        decay_share=decay,
        decay_shape=dice.choice(list(DecayShape)),
        cooldown_share=cooldown,
        constant_lr_ratio=dice.uniform(floor, 1),
    )


@pytest.mark.parametrize("name", FILES)
def test_each_file_warms_up_to_the_peak_and_ends_at_its_floor(name: str) -> None:
    schedule = schedule_of(name)
    found = rates(schedule, 1000)
    assert schedule.decay == name
    assert found[0] == pytest.approx(PEAK / 10)
    assert found[9] == pytest.approx(PEAK) == pytest.approx(max(found))
    assert found[9:] == sorted(found[9:], reverse=True)
    assert found[-1] == pytest.approx(PEAK if name == "constant" else PEAK * schedule.min_lr_ratio)


def test_whatever_is_valid_is_continuous_never_above_peak_and_ends_at_its_floor() -> None:
    dice = random.Random(7)
    for _ in range(400):
        schedule, steps = drawn(dice), dice.randrange(200, 3000)
        assert not list(schedule.problems())
        found = rates(schedule, steps)
        assert max(found) <= PEAK * (1 + 1e-12)
        assert min(found) > 0
        decays = schedule.decay in (Decay.cosine, Decay.linear) or (schedule.decay is not Decay.constant and round(schedule.decay_share * steps) > 0)
        if decays:
            assert found[-1] == pytest.approx(PEAK * schedule.min_lr_ratio)
        warmup = max(1, round(schedule.warmup_share * steps))
        assert found[warmup - 1 :] == sorted(found[warmup - 1 :], reverse=True), schedule
        for step, (before, after) in enumerate(itertools.pairwise(found)):
            assert abs(after - before) <= bound(step + 1, steps, schedule) * (1 + 1e-9), (schedule, step)


def bound(step: int, steps: int, schedule: ScheduleConfig) -> float:
    """The most that the rate may change into `step`: the steepest slope of the phase it is in, times one step."""
    warmup = max(1, round(schedule.warmup_share * steps))
    if step < warmup:
        return PEAK / warmup
    if schedule.decay in (Decay.cosine, Decay.linear):
        return PEAK * 1.6 / (steps - warmup)
    decay, cooldown = round(schedule.decay_share * steps), round(schedule.cooldown_share * steps)
    if step >= steps - decay:
        return PEAK * 7 * (1 / decay if schedule.decay_shape is not DecayShape.one_minus_sqrt else decay**-0.5)
    return PEAK * 7.2 / max(1, cooldown)  # h'(0) / h(1) = 7.15


def test_cosine_is_halfway_in_the_middle() -> None:
    schedule = ScheduleConfig(decay=Decay.cosine, warmup_share=0.1, min_lr_ratio=0.1)
    assert rates(schedule)[54] == pytest.approx((1e-3 + 1e-4) / 2, rel=1e-6)


def test_wsd_stays_until_its_last_share() -> None:
    found = rates(schedule_of("wsd"))
    assert set(found[1:90]) == {PEAK}
    assert found[90] == pytest.approx(PEAK * (1 - 0.1**0.5))
    assert found[-1] == 0


def test_inverse_sqrt_by_the_numbers_of_the_paper() -> None:
    """h(x) = 1 / sqrt(1 + 10 x) - 1 between peak and constant; then the constant rate; then a straight line of its logarithm."""
    found = rates(schedule_of("inverse_sqrt"), 1000)
    halfway = (1 / 6**0.5 - 1) / (1 / 11**0.5 - 1)
    assert found[109] == pytest.approx(PEAK * (1 - 0.5 * halfway))
    assert set(found[209:900]) == {found[209]}
    assert found[209] == pytest.approx(PEAK / 2)
    assert found[949] == pytest.approx((found[899] * found[999]) ** 0.5)


@pytest.mark.parametrize("name", ["constant", "wsd", "inverse_sqrt"])
def test_a_longer_budget_does_not_change_what_was_trained(name: str) -> None:
    short = schedule_of(name)
    doubled = dataclasses.replace(short, warmup_share=short.warmup_share / 2, cooldown_share=short.cooldown_share / 2)
    before_decay = 1000 if name == "constant" else 900
    assert rates(doubled, 2000)[:before_decay] == rates(short, 1000)[:before_decay]


def test_rewarm_is_a_straight_line_from_the_old_rate_to_the_new() -> None:
    assert [rewarmed(step, 10, 1e-5, 5e-5, 4) for step in range(10, 16)] == pytest.approx([2e-5, 3e-5, 4e-5, 5e-5, 5e-5, 5e-5])
    assert rewarmed(10, 10, 1e-5, 5e-5, 0) == 5e-5
    assert rewarmed(10, 10, 5e-5, 1e-5, 2) == pytest.approx(3e-5)


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["schedule=wsd", "schedule.warmup_share=0.95"], "schedule.decay_share"),
        (["schedule=inverse_sqrt", "schedule.cooldown_share=0.95"], "schedule.cooldown_share"),
        (["schedule=inverse_sqrt", "schedule.constant_lr_ratio=0.05"], "schedule.constant_lr_ratio"),
        (["schedule=inverse_sqrt", "schedule.min_lr_ratio=0"], "schedule.min_lr_ratio"),
        (["schedule.rewarm_steps=-1"], "schedule.rewarm_steps"),
    ],
)
def test_what_no_schedule_can_be(overrides: list[str], where: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_config(["experiment=demo", *overrides])
    assert [problem.where for problem in caught.value.problems] == [where]


def test_schedule_in_words() -> None:
    assert describe(1000, PEAK, schedule_of("cosine")) == "cosine: warm-up of 10 steps to 0.001, down to 0.0001 at step 1000"
    assert describe(1000, PEAK, schedule_of("wsd")) == "wsd: warm-up of 10 steps to 0.001, one_minus_sqrt in the last 100 to 0"
    words = "inverse_sqrt: warm-up of 10 steps to 0.001, cooldown of 200 steps to 0.0005, exponential in the last 100 to 0.0001"
    assert describe(1000, PEAK, schedule_of("inverse_sqrt")) == words


@pytest.mark.slow
def test_picture() -> None:
    """Draws docs/schedules.png."""
    from cpt.report.canvas import Canvas

    with Canvas(3.2) as canvas:
        (axes,) = canvas.axes()
        for name in FILES:
            axes.plot([step / 2000 for step in range(2000)], [rate / PEAK for rate in rates(schedule_of(name), 2000)], label=name)
        axes.set(xlabel="share of the budget", ylabel="learning rate / peak", title="hydra_conf/schedule", ylim=(0, 1.05))
        axes.legend(loc="lower left")
        picture = canvas.png()
    assert Path("docs/schedules.png").write_bytes(picture)
