from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpt.config.run import RunConfig
from cpt.core.errors import UserError
from cpt.core.records import DataManifest, MixturePlan, SourceShare
from cpt.data import MixtureDataset, open_heldout, open_mixture
from cpt.data.indexed import IndexedTokens

Prepared = tuple[RunConfig, DataManifest]
WEIGHTS = {"listings": 0.5, "novels": 0.25, "dictionary": 0.2, "german": 0.03, "french": 0.02}


def plan(manifest: DataManifest, weights: dict[str, float]) -> MixturePlan:
    """A plan with just these weights; how weights come about is tested in tests/mix."""
    shares = [
        SourceShare(name=name, group="general", language="en", weight=weight, planned_tokens=0, available_tokens=0, epochs=0.0)
        for name, weight in weights.items()
    ]
    return MixturePlan(train_tokens=20480, shares=shares, data_hash=manifest.content_hash)


@pytest.fixture(scope="module")
def mixture(prepared: Prepared) -> MixtureDataset:
    config, manifest = prepared
    return open_mixture(config, manifest, plan(manifest, WEIGHTS))


def test_shapes_and_range(mixture: MixtureDataset) -> None:
    batch = mixture.batch(0, 8)
    assert batch.tokens.shape == (8, 65)
    assert (batch.tokens.dtype, batch.source.dtype) == (np.int64, np.int64)
    assert batch.source.shape == (8,)
    assert 0 <= batch.tokens.min() <= batch.tokens.max() < 512
    assert set(batch.source.tolist()) <= set(range(len(mixture.names)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(start=st.integers(0, 20_000), cut=st.integers(1, 15))
def test_a_batch_is_its_parts_whoever_asks(prepared: Prepared, mixture: MixtureDataset, start: int, cut: int) -> None:
    config, manifest = prepared
    fresh = open_mixture(config, manifest, plan(manifest, WEIGHTS))  # a resumed process
    whole, first, second = fresh.batch(start, start + 16), mixture.batch(start, start + cut), mixture.batch(start + cut, start + 16)
    np.testing.assert_array_equal(whole.tokens, np.concatenate([first.tokens, second.tokens]))
    np.testing.assert_array_equal(whole.source, np.concatenate([first.source, second.source]))


def test_ledger_counts_what_batches_hold(mixture: MixtureDataset) -> None:
    seen = Counter(mixture.names[source] for source in mixture.batch(0, 320).source)
    assert mixture.ledger(320) == {name: 64 * seen[name] for name in WEIGHTS}
    assert sum(mixture.ledger(320).values()) == 320 * 64


def test_realized_shares_are_the_planned_ones(mixture: MixtureDataset) -> None:
    ledger = mixture.ledger(10_000)
    for name, weight in WEIGHTS.items():
        assert abs(ledger[name] / sum(ledger.values()) - weight) < 0.001


def test_epochs_grow_with_the_samples(prepared: Prepared, mixture: MixtureDataset) -> None:
    train = prepared[1].source("french").train.tokens
    per_epoch = (train - 1) // 64
    assert mixture.epochs(10_000)["french"] == pytest.approx(200 / per_epoch)


def test_provenance(prepared: Prepared, mixture: MixtureDataset) -> None:
    config, manifest = prepared
    for index in range(20):
        name, documents = mixture.documents(index)
        tokens = IndexedTokens(config.runs.data("sample").root / manifest.source(name).train.prefix)
        row = "".join(map(chr, np.concatenate([tokens.document(document) for document in documents])))
        assert "".join(map(chr, mixture.batch(index, index + 1).tokens[0])) in row


def test_a_source_of_weight_zero_is_not_opened(prepared: Prepared) -> None:
    config, manifest = prepared
    opened = open_mixture(config, manifest, plan(manifest, {"listings": 1.0, "novels": 0.0}))
    assert opened.names == ["listings"]


def test_a_plan_for_other_data_is_refused(prepared: Prepared) -> None:
    config, manifest = prepared
    with pytest.raises(UserError, match="this run was planned for data 000"):
        open_mixture(config, manifest, dataclasses.replace(plan(manifest, WEIGHTS), data_hash="0" * 64))


def test_heldout_windows(prepared: Prepared) -> None:
    config, manifest = prepared
    windows = open_heldout(config, manifest)
    assert list(windows) == [source.name for source in manifest.sources]
    for name, found in windows.items():
        assert found.shape == (min(config.evaluate.heldout_sequences, (manifest.source(name).heldout.tokens - 1) // 64), 65)
        np.testing.assert_array_equal(found, open_heldout(config, manifest)[name])
        np.testing.assert_array_equal(found[0, -1:], found[1, :1])


def test_heldout_and_training_share_no_window(prepared: Prepared, mixture: MixtureDataset) -> None:
    rows = {row.tobytes() for row in mixture.batch(0, 2000).tokens}
    assert all(row.tobytes() not in rows for found in open_heldout(*prepared).values() for row in found)
