"""The table of `cpt plan --validate`, row by row, and what holds it up: one constant a precision, from one row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.plan.published import ROWS, Published, published
from cpt.plan.step import step_seconds
from cpt.plan.validate import Check, checks, efficiency, ellama_checks, explained, rates, step_checks

ROWS_READ = published()
CHECKS = list(checks(ROWS_READ))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.kind} {check.label}")
def test_a_published_figure_comes_out(check: Check) -> None:
    """Those that are known not to must still be off: an excuse that is no longer needed goes."""
    assert check.holds is not bool(check.outside), f"ours {check.ours:.4g}, published {check.published:.4g} {check.unit} ({check.error:+.1%})"


def test_what_must_be_there_is_there() -> None:
    """Kinds and their numbers of rows; what the suite promises to reproduce."""
    kinds = [check.kind for check in CHECKS]
    least = {"FLOP/s": 13, "days": 25, "step": 60, "memory": 13, "checkpoint": 3, "MTTF": 3, "ETTR": 9, "e-Llama": 3}
    assert {kind: kinds.count(kind) >= count for kind, count in least.items()} == dict.fromkeys(least, True)


def test_each_machine_is_fitted_on_one_row_a_precision() -> None:
    fitted = [(row.machine, row.work.fp8) for row in ROWS_READ if row.calibrates]
    assert len(fitted) == len(set(fitted))
    assert {row.machine for row in ROWS_READ} == {machine for machine, _ in fitted}


def test_the_shipped_constants_are_the_fitted_ones() -> None:
    shipped, fitted = compose_config(["experiment=ellama_8b"]).cluster.rates, rates(ROWS_READ)["h100"]
    assert shipped.bf16_efficiency == pytest.approx(fitted.bf16_efficiency, abs=0.001)
    assert shipped.fp8_efficiency == pytest.approx(fitted.fp8_efficiency, abs=0.001)


@pytest.mark.parametrize(
    "row", [row for row in ROWS_READ if row.machine == "h100" and not row.work.fp8 and row.work.world_size in (64, 2048)], ids=lambda row: row.label
)
def test_any_row_of_the_precision_would_do_for_the_fit(row: Published) -> None:
    """Fitted on another model and layout, the constant stays within 15% of the shipped one: it is the machine's, not the row's."""
    assert efficiency(row.work, row.seconds) == pytest.approx(rates(ROWS_READ)["h100"].bf16_efficiency, rel=0.15)


def test_an_efficiency_gives_the_seconds_it_was_fitted_to() -> None:
    row = ROWS_READ[0]
    fitted = replace(row.work, rates=replace(row.work.rates, bf16_efficiency=efficiency(row.work, 20.0)))
    assert step_seconds(fitted)["total"] == pytest.approx(20.0, rel=1e-6)


def test_the_way_from_the_published_rate_to_ellamas_month_has_no_gap() -> None:
    parts = dict(explained(ROWS_READ))
    total = next(check for check in ellama_checks() if check.label.startswith("GPU-hours"))
    assert sum(parts.values()) == pytest.approx(1e3 * total.ours)
    assert next(iter(parts.values())) == pytest.approx(248_500, rel=0.001), "1117.6 tokens a second and GPU"


def test_a_row_that_is_added_to_the_file_is_held_against(tmp_path: Path) -> None:
    """The file is the whole list: a row more is one check more, a wrong one fails."""
    text = ROWS.read_text().replace("seconds: 14.66, days: 161.82", "seconds: 28.0")
    (tmp_path / "rows.yaml").write_text(text)
    (wrong,) = [check for check in step_checks(published(tmp_path / "rows.yaml")) if not check.holds and not check.outside]
    assert wrong.label == "llama31_70b bf16 TP4 CP2 PP4 VP5 x 64"
