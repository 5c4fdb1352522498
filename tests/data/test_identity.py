"""One hash says what is trained on; another one is refused unless a human took it."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest

from cpt.config.compose import compose_config
from cpt.core.errors import UserError
from cpt.core.paths import RunPaths
from cpt.core.records import MixturePlan, SourceShare
from cpt.data import batch_crc32, data_fingerprint, require_same_data, row_checksums
from cpt.data.identity import accept


def mixture(**weights: float) -> MixturePlan:
    shares = [
        SourceShare(name=name, group="general", language="en", weight=weight, planned_tokens=0, available_tokens=0, epochs=0.0)
        for name, weight in weights.items()
    ]
    return MixturePlan(train_tokens=20480, shares=shares, data_hash="5f" * 32)


def test_what_decides_a_sample_changes_the_fingerprint_and_nothing_else_does() -> None:
    small = ["model=tiny", "corpus=sample", "train.train_tokens=20480"]
    config, plan = compose_config(small), mixture(a=0.5, b=0.5)
    same = data_fingerprint(plan, config)
    assert data_fingerprint(dataclasses.replace(plan, train_tokens=1), compose_config([*small, "optimizer.lr_ratio=0.5"])) == same
    assert data_fingerprint(mixture(a=0.5, b=0.5, unread=0.0), config) == same
    others = [
        data_fingerprint(mixture(a=0.4, b=0.6), config),
        data_fingerprint(mixture(b=0.5, a=0.5), config),
        data_fingerprint(dataclasses.replace(plan, data_hash="6f" * 32), config),
        data_fingerprint(plan, compose_config([*small, "mixture.seed=1"])),
        data_fingerprint(plan, compose_config([*small, "train.sequence_length=128"])),
    ]
    assert len({same, *others}) == 6


def test_a_change_is_refused_until_exactly_it_is_accepted(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    require_same_data(run, 10, "old", "old")
    with pytest.raises(UserError, match="--accept-changed-data"):
        require_same_data(run, 10, "old", "new")
    accept(run, 10, "old", "new")
    accept(run, 20, "new", "newer")
    require_same_data(run, 10, "old", "new")
    require_same_data(run, 20, "new", "newer")
    for pair in (("new", "old"), ("old", "newer")):
        with pytest.raises(UserError):
            require_same_data(run, 10, *pair)


def test_the_checksum_of_a_batch_is_that_of_its_rows_in_order() -> None:
    tokens = np.arange(12, dtype=np.int64).reshape(3, 4)
    rows = row_checksums(tokens)
    assert rows.tolist() == [zlib.crc32(row.tobytes()) for row in tokens]
    assert batch_crc32(rows) == batch_crc32(np.concatenate([row_checksums(tokens[:1]), row_checksums(tokens[1:])]))
    assert batch_crc32(rows) != batch_crc32(rows[::-1].copy())
