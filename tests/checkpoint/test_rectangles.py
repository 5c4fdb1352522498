"""A flat fragment of a parameter, as rectangles."""

from __future__ import annotations

import numpy as np
import pytest

from cpt.checkpoint.chunks import rectangles


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1, 6), (6, 1), (2, 1, 3)])
def test_every_fragment_is_a_few_rectangles_in_order(shape: tuple[int, ...]) -> None:
    whole = np.arange(np.prod(shape)).reshape(shape)
    for start in range(whole.size + 1):
        for end in range(start, whole.size + 1):
            parts = list(rectangles(shape, start, end))
            found = [whole[tuple(slice(o, o + n) for o, n in zip(*part, strict=True))].ravel() for part in parts]
            np.testing.assert_array_equal(np.concatenate([[], *found]), np.arange(start, end))
            assert len(parts) <= 2 * len(shape) - 1


def test_nothing_is_no_rectangle() -> None:
    assert list(rectangles((3, 5), 4, 4)) == list(rectangles((3, 5), 4, 2)) == []
