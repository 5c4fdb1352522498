"""Where the time of a step goes, with a clock that the test turns."""

from __future__ import annotations

import pytest

from cpt.train.speed import Speedometer


def test_phases_and_rates() -> None:
    now = iter([0.0, 10.0, 10.5, 13.5, 13.7, 14.0])
    speed = Speedometer(flops_per_token=1e9, peak_flops=1e12, ranks=2, clock=lambda: next(now))
    speed.begin()
    for phase in ("data", "forward_backward", "optimizer"):
        speed.lap(phase)
    found = speed.values(tokens=4000)
    assert found == pytest.approx(
        {
            "train/step_seconds": 4.0,
            "train/tokens_per_second": 1000.0,
            "train/mfu": 0.5,
            "time/data": 0.5,
            "time/forward_backward": 3.0,
            "time/optimizer": 0.2,
        }
    )
    assert speed.shown(found) == "1000 tokens/s  0.5 TFLOP/s a rank  MFU 50.0%"
