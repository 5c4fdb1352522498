"""Which sample comes next, where windows are never trained on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cpt.data.position import next_sample, passed, spans

WINDOWS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: [pair[0], pair[0] + pair[1]]), max_size=5)


def slowly(count: int, skipped: list[list[int]]) -> list[int]:
    """The definition: every number that is in no window."""
    return [number for number in range(400) if not any(start <= number < stop for start, stop in skipped)][:count]


@given(WINDOWS, st.integers(0, 80), st.integers(1, 40))
def test_is_its_definition(skipped: list[list[int]], consumed: int, count: int) -> None:
    numbers = [number for span in spans(consumed, count, skipped) for number in span]
    assert numbers == slowly(consumed + count, skipped)[consumed:]
    assert next_sample(consumed, skipped) == numbers[0]
    gone = sum(len(window) for window in passed(numbers[0], skipped))
    assert next_sample(consumed, skipped) == consumed + gone


def test_a_window_that_is_skipped_now_begins_where_the_run_stands() -> None:
    assert next_sample(16, [[16, 24]]) == 24
    assert spans(12, 8, [[16, 24]]) == [range(12, 16), range(24, 28)]
