"""How quantities are written."""

from __future__ import annotations

import pytest

from cpt.core import units


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (11_796_480, "11.8 M"), (999_990_000_000, "1 T"), (1_000, "1 k"), (999.9, "1 k"), (-2_500_000, "-2.5 M")]
)
def test_count(value: float, text: str) -> None:
    assert units.count(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (1610612736, "1.5 GiB"), (2**40, "1 TiB"), (500, "500 B")])
def test_size(value: float, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.25, "0.2s"), (9.9, "9.9s"), (59.7, "1m 0s"), (5025, "1h 23m 45s"), (90061, "1d 1h 1m")])
def test_duration(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("moment", "seconds"), [("1970-01-02T00:00:00Z", 86400.0), ("1970-01-02T00:00:00", 86400.0), ("1970-01-02T01:00:00+01:00", 86400.0), ("", 0.0)]
)
def test_epoch(moment: str, seconds: float) -> None:
    assert units.epoch(moment) == seconds
