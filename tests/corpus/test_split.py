from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cpt.config.data import CorpusConfig
from cpt.corpus.documents import Document, sample_bytes
from cpt.corpus.split import split_heldout


def documents(families: list[int]) -> list[Document]:
    return [Document(id=f"d{index}", text=f"text {index}", family=f"f{family}") for index, family in enumerate(families)]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=100), st.floats(0, 1), st.integers(0, 5))
def test_no_family_is_on_both_sides_and_nothing_is_lost(families: list[int], fraction: float, seed: int) -> None:
    whole = documents(families)
    train, heldout = split_heldout(whole, CorpusConfig(heldout_fraction=fraction, seed=seed))
    assert {d.family for d in train}.isdisjoint(d.family for d in heldout)
    assert sorted(d.id for d in train + heldout) == sorted(d.id for d in whole)
    assert train
    assert heldout or len(set(families)) == 1


def test_size_and_cap() -> None:
    whole = documents(list(range(1000)))
    assert len(split_heldout(whole, CorpusConfig(heldout_fraction=0.05))[1]) == 50
    assert len(split_heldout(whole, CorpusConfig(heldout_fraction=0.05, heldout_max_documents=7))[1]) == 7


def test_new_documents_do_not_reshuffle_old_ones() -> None:
    before = {d.id for d in split_heldout(documents(list(range(1000))), CorpusConfig())[1]}
    after = {d.id for d in split_heldout(documents(list(range(1010))), CorpusConfig())[1]}
    assert len(before & after) >= 45


def test_heldout_prefix_is_a_fair_sample() -> None:
    """Held-out documents are stored in drawn order, so their numbers are not ascending."""
    heldout = split_heldout(documents(list(range(1000))), CorpusConfig())[1]
    assert [d.id for d in heldout] != sorted((d.id for d in heldout), key=lambda name: int(name[1:]))


def test_a_document_without_family_is_its_own() -> None:
    train, heldout = split_heldout([Document(id="a", text="x"), Document(id="b", text="y")], CorpusConfig())
    assert {len(train), len(heldout)} == {1}


def test_sampling_stops_at_the_size_and_keeps_the_order() -> None:
    whole = [Document(id=str(number), text="0123456789") for number in range(100)]
    chosen = sample_bytes(whole, 305, 0)
    assert len(chosen) == 31
    assert chosen == sorted(chosen, key=lambda d: int(d.id))
    assert chosen != sample_bytes(whole, 305, 1)
    assert sample_bytes(whole, 0, 0) == whole
