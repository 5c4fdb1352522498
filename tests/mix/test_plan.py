from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpt.config.data import MixtureConfig, OnCap
from cpt.core.errors import Problem, UserError
from cpt.core.manifest import DataManifest, ShardRecord, SourceRecord, SplitRecord
from cpt.data.blend import Blend
from cpt.mix import plan_mixture

SIZES = {"listings": 1_700_000, "reviews": 300_000, "novels": 400_000, "dictionary": 1_000_000, "man_de": 700_000, "man_fr": 650_000}
LANGUAGES = {"man_de": "de", "man_fr": "fr"}


def source(name: str, tokens: int) -> SourceRecord:
    split = SplitRecord(shards=[ShardRecord(prefix=f"{name}/train", documents=10, bytes=tokens * 4, tokens=tokens, sha256=name)])
    group = "domain" if name in ("listings", "reviews") else "general"
    return SourceRecord(
        name=name,
        group=group,
        language=LANGUAGES.get(name, "en"),
        license="",
        origin="",
        documents_read=10,
        bytes_read=0,
        dropped={},
        scrubbed={},
        train=split,
        heldout=split,
    )


def manifest(**sizes: int) -> DataManifest:
    return DataManifest(
        corpus="test",
        key="",
        corpus_fingerprint="f",
        tokenizer_sha256="t",
        vocab_size=512,
        end_of_document_id=0,
        dtype="uint16",
        sources=[source(name, tokens) for name, tokens in (sizes or SIZES).items()],
        benchmarks={},
        contamination=[],
        classifiers=[],
        stages=[],
        versions={},
    )


def weights(mixture: MixtureConfig, data: DataManifest | None = None) -> dict[str, float]:
    return plan_mixture(mixture, data or manifest(), 40_960, 256).weights


def problems(mixture: MixtureConfig, data: DataManifest | None = None, train_tokens: int = 40_960) -> list[Problem]:
    with pytest.raises(UserError) as caught:
        plan_mixture(mixture, data or manifest(), train_tokens, 256)
    return list(caught.value.problems)


def test_shares_of_the_recipe() -> None:
    found = weights(MixtureConfig(domain_share=0.5, non_english_share=0.1))
    assert found["listings"] + found["reviews"] == pytest.approx(0.5)
    assert found["man_de"] + found["man_fr"] == pytest.approx(0.05)
    assert found["novels"] + found["dictionary"] == pytest.approx(0.45)


def test_inside_a_part_sources_share_by_size() -> None:
    found = weights(MixtureConfig())
    assert found["listings"] / found["reviews"] == pytest.approx(17 / 3)
    assert found["man_de"] / found["man_fr"] == pytest.approx(70 / 65)


def test_named_weights_are_relative_to_tokens_of_the_others() -> None:
    found = weights(MixtureConfig(weights={"novels": 3, "dictionary": 1}))
    assert found["novels"] / found["dictionary"] == pytest.approx(3)
    found = weights(MixtureConfig(weights={"novels": 0}))
    assert (found["novels"], found["dictionary"]) == (0, pytest.approx(0.45))


@given(st.floats(0, 1), st.floats(0, 1))
def test_weights_sum_to_one_in_the_order_of_the_manifest(domain: float, other: float) -> None:
    found = weights(MixtureConfig(domain_share=domain, non_english_share=other, max_epochs=1e9))
    assert sum(found.values()) == pytest.approx(1)
    assert list(found) == list(SIZES)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(2_000, 200_000))
def test_realized_shares_are_within_a_thousandth_of_the_plan(domain: float, other: float, samples: int) -> None:
    plan = plan_mixture(MixtureConfig(domain_share=domain, non_english_share=other, max_epochs=1e9), manifest(), samples * 256, 256)
    counts = Blend(plan.weights).counts(samples)
    realized = {name: count / samples for name, count in counts.items()}
    assert all(abs(realized[name] - weight) <= max(0.001, len(SIZES) / samples) for name, weight in plan.weights.items())


def test_epochs_count_whole_windows() -> None:
    plan = plan_mixture(MixtureConfig(domain_share=1.0), manifest(listings=1000), 1536, 256)
    assert plan.shares[0].epochs == pytest.approx(2.0)  # 768 of the 1000 tokens fill windows
    assert plan.shares[0].planned_tokens == 1536


def test_repeating_too_often_is_refused() -> None:
    data = manifest(listings=1_000_000, novels=1_000_000, man_de=500)
    assert problems(MixtureConfig(), data) == [
        Problem(
            where="mixture.weights.man_de",
            what="man_de would be read 8 times (2048 tokens from 500)",
            why="mixture.max_epochs=4 allows 1024 tokens",
            fix="mixture.on_cap=redistribute, a smaller share, fewer train.train_tokens, more text, or mixture.max_epochs=8",
        )
    ]
    assert weights(MixtureConfig(max_epochs=8), data)["man_de"] == pytest.approx(0.05)


def test_a_source_smaller_than_a_window_is_refused() -> None:
    [found] = problems(MixtureConfig(), manifest(listings=1_000_000, novels=1_000_000, man_de=256))
    assert found.what == "man_de has 256 tokens to train on"


def test_every_side_without_a_source_is_refused() -> None:
    domain_only, general_only = manifest(listings=10**6), manifest(novels=10**6, man_de=10**6)
    assert [(found.where, found.what) for found in problems(MixtureConfig(), general_only)] == [("mixture.domain_share", "is 0.5")]
    assert [found.why for found in problems(MixtureConfig(), domain_only)] == [
        "the corpus has no English general source to give 45.0% of the tokens",
        "the corpus has no non-English general source to give 5.0% of the tokens",
    ]
    assert weights(MixtureConfig(domain_share=1.0), domain_only) == {"listings": 1.0}
    assert weights(MixtureConfig(domain_share=0.0), general_only)["man_de"] == pytest.approx(0.1)


def test_the_proposed_fix_works() -> None:
    [found] = problems(MixtureConfig(), manifest(listings=10**6, novels=10**6))
    assert found.fix.startswith("mixture.non_english_share=0,")
    assert weights(MixtureConfig(non_english_share=0), manifest(listings=10**6, novels=10**6)) == {"listings": 0.5, "novels": 0.5}


def test_names_of_no_source_and_negative_weights_are_refused_together() -> None:
    found = problems(MixtureConfig(weights={"nowels": 1, "novels": -1}))
    assert [(problem.where, problem.what) for problem in found] == [
        ("mixture.weights.nowels", "names no source"),
        ("mixture.weights.novels", "is -1"),
    ]
    assert "novels" in found[0].why


def test_a_weight_beside_sources_that_weigh_their_tokens_is_refused_with_what_it_would_have_been() -> None:
    [found] = problems(MixtureConfig(weights={"novels": 3, "man_de": 0}))
    tokens = SIZES["dictionary"]
    assert found.where == "mixture.weights" and found.what == "gives novels a weight, but not dictionary of the same English general part"
    assert f"dictionary {tokens:,}: novels would be {3 / (3 + tokens):.2%} of the part" in found.why
    assert found.fix.startswith("mixture.weights='{novels: 3, dictionary: <weight>}'")


def test_a_part_whose_named_weights_are_all_zero_has_no_source() -> None:
    [found] = problems(MixtureConfig(weights={"man_de": 0, "man_fr": 0}))
    assert found.where == "mixture.non_english_share"


CAPPED = MixtureConfig(epoch_caps={"dictionary": 2.0}, on_cap=OnCap.redistribute)


def test_a_cap_of_its_own_is_refused_by_its_own_name() -> None:
    data = manifest(listings=10**6, novels=10**6, dictionary=1_000, man_de=10**6)
    assert weights(MixtureConfig(), data)["dictionary"] > 0
    [found] = problems(MixtureConfig(weights={"novels": 1, "dictionary": 1}, epoch_caps={"dictionary": 0.5}), data)
    assert found.why == "mixture.epoch_caps.dictionary=0.5 allows 256 tokens"
    [found] = problems(MixtureConfig(epoch_caps={"novel": 2.0}), data)
    assert (found.where, found.what) == ("mixture.epoch_caps.novel", "names no source")


@given(st.integers(300, 4_000), st.floats(0.6, 3.0), st.floats(0.1, 0.9))
def test_what_a_cap_leaves_goes_to_the_others_of_the_part_and_no_cap_is_passed_by_one_sample(tokens: int, cap: float, domain: float) -> None:
    data = manifest(listings=10**6, novels=10**6, dictionary=tokens, man_de=10**6)
    mixture = MixtureConfig(
        domain_share=domain, weights={"novels": 1, "dictionary": 3}, epoch_caps={"dictionary": cap}, max_epochs=1e6, on_cap=OnCap.redistribute
    )
    plan = plan_mixture(mixture, data, 200_000, 256)
    allowed = int(cap * ((tokens - 1) // 256))
    counts = Blend({name: weight for name, weight in plan.weights.items() if weight > 0}).counts(200_000 // 256)
    assert counts.get("dictionary", 0) <= allowed
    if any(share.epochs >= share.epoch_cap - 1e-9 for share in plan.shares if share.name == "dictionary"):
        assert {share.name: share.planned_tokens for share in plan.shares} == {name: 256 * counts.get(name, 0) for name in plan.weights}
    general = plan.weights["novels"] + plan.weights["dictionary"]
    assert general == pytest.approx((1 - domain) * 0.9, abs=3 / 781)


def test_a_part_that_its_caps_cannot_fill_is_refused() -> None:
    data = manifest(listings=2_000, novels=10**6, man_de=10**6)
    [found] = problems(MixtureConfig(epoch_caps={"listings": 2.0}, on_cap=OnCap.redistribute), data)
    assert found.where == "mixture.domain_share" and "their epoch caps allow 17.5% of that" in found.why


def test_what_was_read_before_counts_towards_cap_and_budget() -> None:
    data = manifest(listings=10**6, novels=10**6, dictionary=2_049, man_de=10**6)
    consumed = {"listings": 10_240, "novels": 4_096, "dictionary": 3_072}
    plan = plan_mixture(dataclasses.replace(CAPPED, weights={"novels": 1, "dictionary": 1}), data, 40_960, 256, consumed)
    shares = {share.name: share for share in plan.shares}
    assert shares["dictionary"].planned_tokens == 4_096 and shares["dictionary"].epochs == 2.0
    assert sum(share.planned_tokens for share in plan.shares) == 40_960
    assert shares["dictionary"].weight == pytest.approx(4 / 92)
