from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpt.core.errors import UserError
from cpt.data.indexed import IndexedTokens
from cpt.data.stream import SourceStream, heldout_windows

Make = Callable[..., IndexedTokens]
# Every token says where it is from, so that samples can be traced.
DOCUMENTS = [[100 * number + place for place in range(7 + 5 * number)] for number in range(12)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12), sequence_length=st.integers(1, 20), epoch=st.integers(0, 3))
def test_an_epoch_reads_each_token_at_most_once_as_input(tokens_of: Make, lengths: list[int], sequence_length: int, epoch: int) -> None:
    starts = np.cumsum([0, *lengths])
    tokens = tokens_of(*[list(range(low, high)) for low, high in pairwise(starts)])
    if tokens.tokens <= sequence_length:
        with pytest.raises(UserError):
            SourceStream(tokens, sequence_length, 1, "s")
        return
    stream = SourceStream(tokens, sequence_length, 1, "s")
    per_epoch = stream.samples_per_epoch
    samples = [stream.sample(epoch * per_epoch + i) for i in range(per_epoch)]
    assert {len(sample) for sample in samples} == {sequence_length + 1}
    inputs = Counter(np.concatenate([sample[:-1] for sample in samples]).tolist())
    targets = Counter(np.concatenate([sample[1:] for sample in samples]).tolist())
    assert max(inputs.values()) == max(targets.values()) == 1
    assert len(inputs) == per_epoch * sequence_length > tokens.tokens - 1 - sequence_length


def test_documents_stay_whole_and_in_order_inside_a_window(tokens_of: Make) -> None:
    stream = SourceStream(tokens_of(*DOCUMENTS), 16, 3, "s")
    for index in range(stream.samples_per_epoch):
        sample = stream.sample(index)
        for before, after in pairwise(sample):
            assert after == before + 1 or after % 100 == 0


def test_provenance_names_the_documents_of_a_sample(tokens_of: Make) -> None:
    stream = SourceStream(tokens_of(*DOCUMENTS), 16, 3, "s")
    for index in range(2 * stream.samples_per_epoch):
        assert stream.documents(index) == list(dict.fromkeys((stream.sample(index) // 100).tolist()))


def test_random_access_is_sequential_access(tokens_of: Make) -> None:
    tokens = tokens_of(*DOCUMENTS)
    first, second = SourceStream(tokens, 16, 3, "s"), SourceStream(tokens, 16, 3, "s")
    forward = [first.sample(index) for index in range(60)]
    for index in reversed(range(60)):
        np.testing.assert_array_equal(second.sample(index), forward[index])


def test_epochs_seeds_and_names_have_their_own_orders(tokens_of: Make) -> None:
    tokens = tokens_of(*DOCUMENTS)
    per_epoch = SourceStream(tokens, 16, 3, "s").samples_per_epoch

    def row(seed: int, name: str, epoch: int) -> bytes:
        stream = SourceStream(tokens, 16, seed, name)
        return np.concatenate([stream.sample(epoch * per_epoch + i) for i in range(per_epoch)]).tobytes()

    assert len({row(3, "s", 0), row(3, "s", 1), row(4, "s", 0), row(3, "t", 0)}) == 4


def test_order_is_pinned(tokens_of: Make) -> None:
    """A changed order would silently break every resume and comparison across versions."""
    stream = SourceStream(tokens_of(*DOCUMENTS), 16, 3, "s")
    assert [int(stream.sample(index)[0]) for index in range(6)] == [1047, 607, 505, 623, 732, 202]


def test_too_small_is_refused(tokens_of: Make) -> None:
    with pytest.raises(UserError) as caught:
        SourceStream(tokens_of([1, 2, 3]), 16, 0, "novels")
    problem = caught.value.problems[0]
    assert (problem.where, problem.what) == ("corpus.sources.novels", "has 3 tokens in train")
    assert problem.why == "one window reads train.sequence_length + 1 = 17"


def test_heldout_windows_are_the_first_in_stored_order(tokens_of: Make) -> None:
    tokens = tokens_of(list(range(50)), name="heldout")
    np.testing.assert_array_equal(heldout_windows(tokens, 10, 3, "s"), [list(range(start, start + 11)) for start in (0, 10, 20)])
    assert heldout_windows(tokens, 10, 99, "s").shape == (4, 11)
    with pytest.raises(UserError):
        heldout_windows(tokens, 50, 1, "s")


def test_empty_split_is_refused(tmp_path: Path, tokens_of: Make) -> None:
    with pytest.raises(UserError):
        SourceStream(tokens_of(), 4, 0, "empty")


def test_threads_that_read_different_epochs_do_not_mix_them(tokens_of: Make) -> None:
    """A reader goes ahead into the next epoch while an anomaly's provenance is looked up in this one."""
    tokens = tokens_of(*DOCUMENTS)
    alone = SourceStream(tokens, 16, 3, "s")
    forward = [alone.sample(index) for index in range(4 * alone.samples_per_epoch)]
    shared, interval = SourceStream(tokens, 16, 3, "s"), sys.getswitchinterval()

    def same(start: int) -> bool:
        return all(np.array_equal(shared.sample(index), forward[index]) for index in [*range(start, len(forward), 7)] * 50)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(same, range(8)))
    finally:
        sys.setswitchinterval(interval)
