"""The rate of a run whose schedule was changed on the way: as launched before, as amended after, and straight from one to the other."""

from __future__ import annotations

import pytest

from cpt.config.amend import amended
from cpt.config.compose import compose_config
from cpt.config.history import History
from cpt.config.schedule import learning_rate
from cpt.core.amendments import Amendment, Change
from cpt.core.records import MixturePlan

LAUNCHED = compose_config(["model=tiny", "corpus=sample", "train.train_tokens=40960", "train.sequence_length=64", "train.global_batch_size=8"])
PLAN = MixturePlan(train_tokens=40960, shares=[], data_hash="")


def amend(history: History, step: int, *overrides: str) -> History:
    """As `cpt resume` would at the checkpoint of `step`."""
    config, past = amended(history.configs[-1], overrides), history.kept(step)
    changed = [Change(key=override.partition("=")[0], old=None, new=None) for override in overrides]
    rate = past.rate(step - 1) if step else 0.0
    made = Amendment(time=0.0, step=step, sample=8 * step, changes=changed, mixture=PLAN, tokens={}, learning_rate=rate)
    return History([*past.configs, config], [*past.amendments, made])


def curve(step: int, history: History, which: int) -> float:
    config = history.configs[which]
    return learning_rate(step, config.train.steps, config.peak_lr, config.schedule)


def test_the_new_curve_holds_from_the_amendment_on_and_the_old_one_before() -> None:
    history = amend(History([LAUNCHED], []), 30, "optimizer.lr_ratio=0.4", "train.train_tokens=61440")
    assert [history.rate(step) for step in range(30)] == [curve(step, history, 0) for step in range(30)]
    assert [history.rate(step) for step in range(30, 120)] == [curve(step, history, 1) for step in range(30, 120)]
    assert history.rate(30) > 2 * history.rate(29)


def test_it_is_reached_over_the_rewarm_steps() -> None:
    history = amend(History([LAUNCHED], []), 30, "optimizer.lr_ratio=0.4", "schedule.rewarm_steps=10")
    before = curve(29, history, 0)
    assert history.rate(30) == pytest.approx(before + (curve(30, history, 1) - before) / 10)
    assert history.rate(39) == curve(39, history, 1)


def test_what_does_not_concern_the_rate_warms_nothing_again() -> None:
    history = amend(History([LAUNCHED], []), 30, "optimizer.lr_ratio=0.4", "schedule.rewarm_steps=10")
    later = amend(history, 35, "mixture.domain_share=0.7")
    assert [later.rate(step) for step in range(80)] == [history.rate(step) for step in range(80)]


def test_an_amendment_that_was_never_reached_is_not_in_the_past_of_the_next() -> None:
    history = amend(History([LAUNCHED], []), 30, "optimizer.lr_ratio=0.4")
    back = amend(history, 20, "optimizer.lr_ratio=0.2")
    assert [amendment.step for amendment in back.amendments] == [20]
    assert back.rate(29) == curve(29, back, 1) and back.rate(19) == curve(19, history, 0)
