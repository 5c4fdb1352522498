"""The picture of failures: its size, its curves, and runs at the edge of what can be drawn."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from cpt.plan.reliability import DAY, RATES, Reliability, advise, best_interval, expected
from cpt.report import reliability_picture as pictures
from cpt.report.reliability_picture import CURVES, OWN, reliability_picture

RUN = Reliability(
    nodes=60,
    failures_per_node_day=RATES["Llama-3"],
    interval_seconds=3600.0,
    blocking_seconds=15.0,
    lag_seconds=180.0,
    restart_seconds=600.0,
    queue_seconds=7200.0,
    spare_nodes=2,
    work_seconds=30 * DAY,
)


def test_picture_is_a_png_of_the_page_width() -> None:
    data = reliability_picture(RUN, advise(RUN), runs=20)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (1440, 1110)


def drawn(run: Reliability) -> list[str]:
    """Texts of the curves' panel, its legend included."""
    axes = Figure().add_subplot()
    named = CURVES if run.failures_per_node_day in CURVES.values() else {**CURVES, OWN: run.failures_per_node_day}
    pictures._curves(axes, run, named, 10)
    legend = axes.get_legend()
    return [text.get_text() for text in axes.texts] + [text.get_text() for text in legend.get_texts()] if legend else []


def test_each_curve_says_its_best_interval_and_what_is_lost_there() -> None:
    texts = "\n".join(drawn(RUN))
    for name, rate in CURVES.items():
        best = replace(RUN, failures_per_node_day=rate)
        best = replace(best, interval_seconds=best_interval(best))
        lost = expected(best).lost
        share = (lost.total - lost.spares) / RUN.gpu_hours(RUN.work_seconds)
        assert f"{name}: {1000 * rate:.3g}" in texts
        assert f"{share:.1%}" in texts
    assert "Llama-3: 3.79, this run" in texts and "chosen: 1h" in texts


def test_a_rate_of_ones_own_has_a_curve() -> None:
    assert any(text.startswith("this run: 10\n") for text in drawn(replace(RUN, failures_per_node_day=0.01)))


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": 2048, "restart_seconds": 6000.0},
        {"work_seconds": 600.0, "interval_seconds": 300.0},
        {"lag_seconds": 7200.0},
    ],
    ids=["fails faster than it restarts", "ten minutes of work", "a lag above the best interval"],
)
def test_runs_at_the_edge_are_drawn(changes: dict[str, float]) -> None:
    run = replace(RUN, **changes)  # type: ignore[arg-type]
    assert reliability_picture(run, advise(run), {"RSC-2": RATES["RSC-2"]}, runs=3).startswith(b"\x89PNG")
    never = any("fails faster than it saves" in text for text in drawn(run))
    assert never == ("restart_seconds" in changes)
