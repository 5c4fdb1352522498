"""Held-out losses from windows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpt.core.manifest import DataManifest, ShardRecord, SourceRecord, SplitRecord
from cpt.evaluate.heldout import Windows, heldout_losses


def manifest() -> DataManifest:
    def split(tokens: int, size: int) -> SplitRecord:
        return SplitRecord(shards=[ShardRecord(prefix="x", documents=1, bytes=size, tokens=tokens, sha256="")])

    source = SourceRecord(
        name="listings",
        group="domain",
        language="en",
        license="",
        origin="",
        documents_read=2,
        bytes_read=9,
        dropped={},
        scrubbed={},
        train=split(1, 1),
        heldout=split(50, 200),
    )
    return DataManifest(
        corpus="c",
        key="",
        corpus_fingerprint="",
        tokenizer_sha256="",
        vocab_size=9,
        end_of_document_id=0,
        dtype="uint16",
        sources=[source],
        benchmarks={},
        contamination=[],
        classifiers=[],
        stages=[],
        versions={},
    )


def test_loss_is_the_mean_over_all_tokens_of_all_windows() -> None:
    seen: list[tuple[tuple[int, ...], np.dtype]] = []

    def token_losses(windows: Windows) -> np.ndarray:
        seen.append((windows.shape, windows.dtype))
        return windows[:, 1:].astype(np.float32)

    (loss,) = heldout_losses(token_losses, {"listings": np.arange(10, dtype=np.uint16).reshape(2, 5)}, manifest())
    assert seen == [((2, 5), np.dtype(np.int64))]
    assert (loss.name, loss.group, loss.tokens) == ("listings", "domain", 8)
    (other,) = heldout_losses(token_losses, {"listings": np.arange(1, 11, dtype=np.uint16).reshape(2, 5)}, manifest())
    assert other.text_sha256 != loss.text_sha256
    assert loss.loss == pytest.approx((1 + 2 + 3 + 4 + 6 + 7 + 8 + 9) / 8)
    assert loss.bits_per_byte == pytest.approx(5.0 / math.log(2) * 50 / 200)


def test_uniform_guess_over_bytes_is_eight_bits() -> None:
    split = SplitRecord(shards=[ShardRecord(prefix="x", documents=1, bytes=1000, tokens=1000, sha256="")])
    assert split.bits_per_byte(math.log(256)) == pytest.approx(8.0)
