"""One hash says what is trained on; another one is refused unless a human took it."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.core.amendments import Segment
from cpt.core.errors import UserError
from cpt.core.paths import RunPaths
from cpt.core.records import DataPosition, MixturePlan, SourceShare
from cpt.data import batch_crc32, data_fingerprint, require_same_data, row_checksums


def mixture(sha256: str = "5f", /, **weights: float) -> MixturePlan:
    sizes = {"planned_tokens": 0, "available_tokens": 0, "epoch_tokens": 0}
    shares = [SourceShare(name=name, group="general", language="en", weight=weight, epoch_cap=4.0, sha256=sha256, **sizes) for name, weight in weights.items()]
    return MixturePlan(train_tokens=20480, shares=shares, data_hash="5f" * 32)


def test_what_decides_a_sample_changes_the_fingerprint_and_nothing_else_does() -> None:
    small = ["model=tiny", "corpus=sample", "train.train_tokens=20480"]
    config, plan = compose_config(small), mixture(a=0.5, b=0.5)

    def of(*segments: tuple[int, MixturePlan], config: RunConfig = config, samples: int = 100) -> str:
        return data_fingerprint([Segment(*segment) for segment in segments], config, samples)

    same = of((0, plan))
    assert of((0, dataclasses.replace(plan, train_tokens=1)), config=compose_config([*small, "optimizer.lr_ratio=0.5"])) == same
    assert of((0, mixture(a=0.5, b=0.5, unread=0.0))) == same == of((0, plan), samples=1)
    assert of((0, plan), (100, mixture(a=0.1, b=0.9))) == same
    others = [
        of((0, mixture(a=0.4, b=0.6))),
        of((0, mixture(b=0.5, a=0.5))),
        of((0, mixture("6f", a=0.5, b=0.5))),
        of((0, plan), config=compose_config([*small, "seed=1"])),
        of((0, plan), config=compose_config([*small, "train.sequence_length=128"])),
        of((0, plan), (99, mixture(a=0.1, b=0.9))),
        of((0, plan), (98, mixture(a=0.1, b=0.9))),
    ]
    assert len({same, *others}) == 8


def test_another_past_is_refused(tmp_path: Path) -> None:
    here = DataPosition(fingerprint="old", next_sample=80, tokens={"a": 640})
    require_same_data(RunPaths(tmp_path), 10, here, dataclasses.replace(here))
    for other in ({"fingerprint": "new"}, {"next_sample": 81}, {"tokens": {"a": 641}}):
        with pytest.raises(UserError, match="was trained on mixture and data old"):
            require_same_data(RunPaths(tmp_path), 10, here, dataclasses.replace(here, **other))


def test_the_checksum_of_a_batch_is_that_of_its_rows_in_order() -> None:
    tokens = np.arange(12, dtype=np.int64).reshape(3, 4)
    rows = row_checksums(tokens)
    assert rows.tolist() == [zlib.crc32(row.tobytes()) for row in tokens]
    assert batch_crc32(rows) == batch_crc32(np.concatenate([row_checksums(tokens[:1]), row_checksums(tokens[1:])]))
    assert batch_crc32(rows) != batch_crc32(rows[::-1].copy())
