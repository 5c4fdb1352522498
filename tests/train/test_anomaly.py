"""The rule by which an update is judged, as a table and as a property."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from cpt.config.anomaly import AnomalyAction, AnomalyConfig
from cpt.train.anomaly import Kind, judge
from cpt.train.state import TrainState

NOISE = [2.0 + 0.01 * math.sin(7 * index) for index in range(128)]
LIMIT = statistics.fmean(NOISE) + 6 * statistics.stdev(NOISE)


def known(**values: object) -> TrainState:
    return TrainState(losses=NOISE, grad_norms=NOISE, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "norm", "kind"),
    [
        (2.0, 2.0, None),
        (LIMIT, LIMIT, None),
        (math.nextafter(LIMIT, math.inf), 2.0, Kind.loss_spike),
        (2.0, math.nextafter(LIMIT, math.inf), Kind.grad_norm_spike),
        (0.1, 0.1, None),
        (math.nan, 2.0, Kind.non_finite),
        (2.0, math.nan, Kind.non_finite),
        (2.0, math.inf, Kind.non_finite),
        (-math.inf, 99.0, Kind.non_finite),
    ],
)
def test_what_is_an_anomaly(loss: float, norm: float, kind: Kind | None) -> None:
    found = judge(AnomalyConfig(spike=AnomalyAction.rollback), known(), loss, norm)
    assert (found.kind if found else None) == kind
    if found and kind is not Kind.non_finite:
        assert found.action is AnomalyAction.rollback
        assert found.limit == LIMIT


def test_a_spike_needs_half_a_window_to_stand_out_from() -> None:
    state = TrainState(losses=NOISE[:63], grad_norms=NOISE[:63])
    assert judge(AnomalyConfig(), state, 1e9, 1e9) is None
    state.remember(2.0, 2.0, 128)
    assert judge(AnomalyConfig(), state, 1e9, 1e9) is not None


def test_budgets_end_in_a_stop_that_names_them() -> None:
    skipping = AnomalyConfig(max_skips=5)
    assert [judge(skipping, known(skips=skips), math.nan, 1.0).action for skips in (4, 5)] == ["skip", "stop"]  # type: ignore[union-attr]
    back = AnomalyConfig(non_finite=AnomalyAction.rollback, max_rollbacks=1)
    assert judge(back, known(rollbacks=0, skips=99), math.nan, 1.0).action is AnomalyAction.rollback  # type: ignore[union-attr]
    stopped = judge(back, known(rollbacks=1), math.nan, 1.0)
    assert stopped is not None
    assert stopped.action is AnomalyAction.stop
    assert "loss nan" in stopped.why and "train.anomaly.max_rollbacks" in stopped.why


def test_memory_is_the_last_window_and_survives_a_checkpoint_to_the_last_digit() -> None:
    state, dice = TrainState(), random.Random(3)
    for _ in range(300):
        state.remember(dice.random(), dice.random(), 128)
    state.skip(range(8, 16))
    assert len(state.losses) == len(state.grad_norms) == 128
    assert TrainState.from_state_dict(state.state_dict()) == state
    state.advance(8)
    assert (state.step, state.skips, state.skipped, state.consumed_samples) == (2, 0, [[8, 16]], 8)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"non_finite": AnomalyAction.note}, "non_finite"),
        ({"window": 3}, "window"),
        ({"sigma": 0.0}, "sigma"),
        ({"max_skips": -1}, "max_skips"),
        ({"rollback_checkpoints": 0}, "rollback_checkpoints"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, object], where: str) -> None:
    assert [problem.where for problem in AnomalyConfig(**values).problems()] == [where]  # type: ignore[arg-type]


def test_what_a_save_was_given_stays_as_it_was() -> None:
    """It is written in a thread, beside updates that go on with the state."""
    state = TrainState(losses=[2.0])
    given = state.state_dict()
    state.skip(range(8, 16))
    state.losses.append(9.0)
    assert given == TrainState(losses=[2.0]).state_dict()


def test_a_held_out_loss_is_of_its_step_alone() -> None:
    """Else a checkpoint that was not evaluated would be kept, or not, for the loss of another."""
    state = TrainState(domain_loss=2.0)
    state.advance(8)
    assert state.domain_loss is None
    state.domain_loss = 2.0
    state.skip(range(8, 16))
    assert state.domain_loss is None
