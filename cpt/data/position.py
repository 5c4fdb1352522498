"""From how many sequences were trained on to the numbers of the samples that come next, where windows of samples are skipped."""

from __future__ import annotations

from collections.abc import Sequence

Windows = Sequence[Sequence[int]]
"""[start, stop) in sample numbers, in any order, overlapping or not: samples that are never trained on."""


def next_sample(consumed: int, skipped: Windows = ()) -> int:
    """Number of the sample that is read after `consumed` sequences were trained on."""
    number = consumed
    for start, stop in _merged(skipped):
        if start <= number:
            number += stop - start
    return number


def spans(consumed: int, count: int, skipped: Windows = ()) -> list[range]:
    """Numbers of the `count` samples that are trained on after `consumed`, ascending."""
    first, found = next_sample(consumed, skipped), list[range]()
    for start, stop in _merged(skipped):
        if start > first:
            taken = min(count, start - first)
            found.append(range(first, first + taken))
            count -= taken
        first = max(first, stop)
        if not count:
            return found
    return [*found, range(first, first + count)]


def consumed_before(number: int, skipped: Windows = ()) -> int | None:
    """Sequences trained on before sample `number`; None when it is skipped itself."""
    if any(start <= number < stop for start, stop in skipped):
        return None
    return number - sum(len(window) for window in passed(number, skipped))


def passed(number: int, skipped: Windows) -> list[range]:
    """Windows that lie before sample `number`, without overlaps."""
    return [range(start, stop) for start, stop in _merged(skipped) if stop <= number]


def _merged(skipped: Windows) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, stop in sorted((int(start), int(stop)) for start, stop in skipped):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found
