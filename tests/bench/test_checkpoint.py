"""The measurement of saves runs for real on a tiny model."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from cpt.bench.checkpoint import OPTIONS, dd, run
from cpt.core.errors import CptError


@pytest.mark.engine
@pytest.mark.slow
def test_both_ways_are_measured_against_the_disk(tmp_path: Path) -> None:
    options = {**OPTIONS, "rounds": "1", "folder": str(tmp_path), "threads": "1"}
    found = run(options, ["model=tiny", "corpus=sample", "train.sequence_length=32", "slurm.tasks_per_node=2"], print)
    for kind in ("synchronous", "asynchronous"):
        one = found.data["kinds"][kind]
        (save,) = one["saves"]
        assert save["bytes"] > 12 * 100_000 and save["seconds"] >= save["staging"] > 0
        assert one["blocked"] == save["staging"] + save["waited"]
        assert one["share_of_dd"] == pytest.approx(one["bytes_per_second"] / median(found.data["dd_bytes_per_second"]))
    assert [row[0] for row in found.rows] == ["synchronous", "asynchronous", "dd, fdatasync"]
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_dd_says_when_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(CptError, match="dd: "):
        dd(tmp_path / "missing" / "file", 1)
    assert dd(tmp_path / "file", 1) > 0 and list(tmp_path.iterdir()) == []
