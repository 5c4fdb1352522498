"""The schedule as a pure function of the step."""

from __future__ import annotations

import pytest

from cpt.config.schedule import learning_rate
from cpt.config.training import Decay, ScheduleConfig


def rates(decay: str, steps: int = 100) -> list[float]:
    schedule = ScheduleConfig(decay=Decay(decay), warmup_share=0.1, min_lr_ratio=0.1)
    return [learning_rate(step, steps, 1e-3, schedule) for step in range(steps)]


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_warmup_reaches_the_peak_and_never_starts_at_zero(decay: str) -> None:
    found = rates(decay)
    assert found[0] == pytest.approx(1e-4)
    assert found[9] == pytest.approx(1e-3) == pytest.approx(max(found))


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_decay_ends_at_the_floor(decay: str) -> None:
    found = rates(decay)
    assert found[-1] == pytest.approx(1e-4)
    assert found[9:] == sorted(found[9:], reverse=True)


def test_cosine_is_halfway_in_the_middle() -> None:
    assert rates("cosine")[54] == pytest.approx((1e-3 + 1e-4) / 2, rel=1e-6)


def test_constant_stays() -> None:
    assert set(rates("constant")[9:]) == {1e-3}
