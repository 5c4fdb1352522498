"""The comparison of loaders runs for real on a small corpus; its figures follow from what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from tests.ranks import run_ranks

SMALL = {"steps": "3", "pairs": "2", "compute": "1", "tokens": "200000", "workers": "0", "threads": "1"}


@pytest.mark.slow
@pytest.mark.engine
def test_all_ways_are_measured_flat_out_and_beside_a_computation(tmp_path: Path) -> None:
    rows, data = run_ranks(1, _bench, tmp_path)[0]
    assert [row[0] for row in rows] == ["memmap, read when asked", "memmap", "DALI", "GPTDataset, DataLoader"]
    assert data["compute"] > 0
    for way in data["ways"].values():
        assert way["batches_per_second"] == pytest.approx(median(3 / one["total"] for one in way["flat_out"]))
        assert way["tokens_per_second"] == pytest.approx(way["batches_per_second"] * 8 * 64)
        assert all(len(one["waits"]) == 3 and 0 < sum(one["waits"]) < one["total"] for one in way["flat_out"] + way["beside"])
    assert data["ways"]["plain"]["over_plain"] == 1
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def _bench(_world: object, folder: Path) -> tuple[Any, Any]:
    from cpt.bench.loading import OPTIONS, run

    found = run({**OPTIONS, **SMALL, "folder": str(folder)}, ["model=tiny", "train.sequence_length=64", "train.global_batch_size=8"], print)
    return found.rows, found.data


@pytest.mark.engine
def test_loaders_that_give_other_rows_are_not_compared(tmp_path: Path) -> None:
    assert "dali do not give the same rows" in run_ranks(1, _spoiled, tmp_path)[0]


def _spoiled(_world: object, folder: Path) -> str:
    from cpt.bench import feeds
    from cpt.config.compose import compose_config
    from cpt.core.errors import CptError

    class Shifted(feeds.WhenAsked):
        def __init__(self, read: Any, starts: Iterator[int]) -> None:
            super().__init__(read, (start + 1 for start in starts))

    feeds.WhenAsked = Shifted  # type: ignore[misc]
    config = compose_config(["model=tiny", "train.sequence_length=64", "train.global_batch_size=8", "train.train_tokens=100000"])
    with pytest.raises(CptError) as raised:
        feeds.open_ways(config, folder, 100_000, 1, 4)
    return str(raised.value)


@pytest.mark.engine
def test_megatrons_rows_are_windows_of_the_same_files(tmp_path: Path) -> None:
    """The same work: global batches of blended rows, inputs and targets one token apart."""
    tokens, labels = run_ranks(1, _megatron, tmp_path)[0]
    assert tokens.shape == labels.shape == (8, 64)
    np.testing.assert_array_equal(tokens[:, 1:], labels[:, :-1])


def _megatron(_world: object, folder: Path) -> tuple[Any, Any]:
    from cpt.bench.feeds import open_ways
    from cpt.config.compose import compose_config

    config = compose_config(["model=tiny", "train.sequence_length=64", "train.global_batch_size=8", "train.train_tokens=100000"])
    batches = open_ways(config, folder, 100_000, 0, 4)["megatron"]()
    batch = batches.next()
    batches.close()
    return batch["tokens"].numpy(), batch["labels"].numpy()
