from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpt.config.run import RunConfig
from cpt.core.amendments import Segment
from cpt.core.errors import UserError
from cpt.core.manifest import DataManifest
from cpt.core.records import MixturePlan, SourceShare
from cpt.data import MixtureDataset, open_heldout, open_mixture
from cpt.data.indexed import IndexedTokens

Prepared = tuple[RunConfig, DataManifest]
WEIGHTS = {"listings": 0.5, "novels": 0.25, "dictionary": 0.2, "german": 0.03, "french": 0.02}


def plan(manifest: DataManifest, weights: dict[str, float]) -> MixturePlan:
    """A plan with just these weights; how weights come about is tested in tests/mix."""
    shares = []
    for name, weight in weights.items():
        source = manifest.source(name)
        tokens, windows = source.train.tokens, (source.train.tokens - 1) // 64
        shares.append(
            SourceShare(
                name=name,
                group=source.group,
                language=source.language,
                weight=weight,
                planned_tokens=0,
                available_tokens=tokens,
                epoch_tokens=windows * 64,
                epoch_cap=4.0,
                sha256=source.train.sha256,
            )
        )
    return MixturePlan(train_tokens=20480, shares=shares, data_hash=manifest.content_hash)


def opened(prepared: Prepared, *parts: tuple[int, dict[str, float]]) -> MixtureDataset:
    config, manifest = prepared
    return open_mixture(config, manifest, [Segment(first, plan(manifest, weights)) for first, weights in parts])


@pytest.fixture(scope="module")
def mixture(prepared: Prepared) -> MixtureDataset:
    return opened(prepared, (0, WEIGHTS))


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
    fresh = opened(prepared, (0, WEIGHTS))  # a resumed process
    whole, first, second = fresh.batch(start, start + 16), mixture.batch(start, start + cut), mixture.batch(start + cut, start + 16)
    np.testing.assert_array_equal(whole.tokens, np.concatenate([first.tokens, second.tokens]))
    np.testing.assert_array_equal(whole.source, np.concatenate([first.source, second.source]))


def test_ledger_counts_what_batches_hold(mixture: MixtureDataset) -> None:
    seen = Counter(mixture.names[source] for source in mixture.batch(0, 320).source)
    ledger = mixture.ledger(320)
    assert ledger.tokens == {name: 64 * seen[name] for name in WEIGHTS}
    assert ledger.total == 320 * 64 == sum(ledger.by_language.values()) == sum(ledger.by_group.values())
    assert ledger.by_language == {"en": ledger.total - 64 * (seen["german"] + seen["french"]), "de": 64 * seen["german"], "fr": 64 * seen["french"]}
    assert ledger.by_group["domain"] == 64 * seen["listings"]


def test_realized_shares_are_the_planned_ones(mixture: MixtureDataset) -> None:
    ledger = mixture.ledger(10_000).tokens
    for name, weight in WEIGHTS.items():
        assert abs(ledger[name] / sum(ledger.values()) - weight) < 0.001


def test_epochs_grow_with_the_samples(prepared: Prepared, mixture: MixtureDataset) -> None:
    train = prepared[1].source("french").train.tokens
    per_epoch = (train - 1) // 64
    assert mixture.ledger(10_000).epochs["french"] == pytest.approx(200 / per_epoch)


def test_provenance(prepared: Prepared, mixture: MixtureDataset) -> None:
    config, manifest = prepared
    for index in range(20):
        name, documents = mixture.documents(index)
        tokens = IndexedTokens(manifest.source(name).train.prefixes(config.runs.data("sample").root))
        row = "".join(map(chr, np.concatenate([tokens.document(document) for document in documents])))
        assert "".join(map(chr, mixture.batch(index, index + 1).tokens[0])) in row


def test_a_source_of_weight_zero_is_not_opened(prepared: Prepared) -> None:
    assert opened(prepared, (0, {"listings": 1.0, "novels": 0.0})).names == ["listings"]


def other_tokens(planned: MixturePlan, name: str) -> MixturePlan:
    shares = [dataclasses.replace(share, sha256="0") if share.name == name else share for share in planned.shares]
    return dataclasses.replace(planned, shares=shares)


def test_a_plan_for_other_tokens_is_refused(prepared: Prepared) -> None:
    config, manifest = prepared
    planned = plan(manifest, WEIGHTS)
    with pytest.raises(UserError, match="has no tokens, or others, for sample"):
        open_mixture(config, manifest, [Segment(0, other_tokens(planned, "french"))])


def test_tokens_that_are_gone_are_missed_only_where_they_would_be_read(prepared: Prepared) -> None:
    config, manifest = prepared
    planned = plan(manifest, WEIGHTS)
    history = [Segment(0, other_tokens(planned, "french")), Segment(100, planned)]
    with pytest.raises(UserError, match="has no tokens, or others, for sample"):
        open_mixture(config, manifest, history[:1])
    late = open_mixture(config, manifest, history)
    assert late.batch(100, 108).tokens.shape == (8, 65)
    with pytest.raises(UserError, match="for sample 99"):
        late.batch(99, 107)


def test_after_a_change_each_source_goes_on_where_it_stood(prepared: Prepared) -> None:
    """French is dropped at 200, listings come back as another part; at 333 dictionary joins: no window twice in an epoch, and the past is as it was."""
    first, then, last = {"listings": 0.5, "novels": 0.4, "french": 0.1}, {"listings": 0.2, "novels": 0.8}, {"dictionary": 0.5, "listings": 0.5}
    changed, straight = opened(prepared, (0, first), (200, then), (333, last)), opened(prepared, (0, first))
    np.testing.assert_array_equal(changed.batch(0, 200).tokens, straight.batch(0, 200).tokens)
    assert changed.batch(201, 209).tokens.tolist() != straight.batch(201, 209).tokens.tolist()
    sources, within = changed._blend.assign(0, 800)
    for index, name in enumerate(changed.names):
        assert within[sources == index].tolist() == list(range(changed.ledger(800).tokens[name] // 64))
    cuts = [changed.batch(start, stop).tokens for start, stop in ((150, 199), (199, 201), (201, 340))]
    np.testing.assert_array_equal(np.concatenate(cuts), changed.batch(150, 340).tokens)
    assert changed.ledger(333).tokens["french"] == changed.ledger(200).tokens["french"] == 20 * 64


def test_a_checkpoint_knows_its_past_and_not_what_is_amended_after_it(prepared: Prepared) -> None:
    first, then = {"listings": 0.5, "novels": 0.5}, {"listings": 0.2, "novels": 0.8}
    straight, changed = opened(prepared, (0, first)), opened(prepared, (0, first), (200, then))
    assert straight.position(200) == changed.position(200)
    assert straight.position(201).fingerprint != changed.position(201).fingerprint
    assert opened(prepared, (0, first), (160, then)).position(200).fingerprint != straight.position(200).fingerprint


def test_skipped_windows_are_not_in_the_ledger(mixture: MixtureDataset) -> None:
    skipped = [[16, 24], [20, 40], [80, 88]]
    numbers = [*range(16), *range(40, 80), *range(88, 100)]
    names = Counter(mixture.names[mixture.sources(number, number + 1)[0]] for number in numbers)
    assert mixture.ledger(len(numbers), skipped).tokens == {name: 64 * names[name] for name in WEIGHTS}
    assert mixture.position(len(numbers), skipped).next_sample == 100


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
