"""Which source each sample of a run comes from, exactly in proportion at every moment, without state.

A `Blend` has one set of weights; a `BlendHistory` is a run whose weights were changed on the way: from sample N on other weights, each source going
on where it stood at N, so that nothing is read twice in an epoch.

Sample k of source s stands at virtual time (k + 1/2) / w_s; samples are taken in order of time, ties in order of sources (Webster's
apportionment: after any n samples each source is within a sample or so of its share). Weights become integers with sum 2^30, so that times are
compared as integer products, never as floats: the position of a sample is `sum over sources of how many stand before it`, a number that
does not depend on who asks. Any cut of [0, n) into ranges therefore gives the same assignment, on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

RESOLUTION = 1 << 30
MAX_SAMPLES = 1 << 31
"""(2k + 1) * weight stays below 2^63 up to here."""

Indices = npt.NDArray[np.int64]


class Blend:
    """Weights of any scale; a source of weight zero never appears."""

    def __init__(self, weights: dict[str, float]) -> None:
        if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ValueError(f"weights must be non-negative with a positive sum: {weights}")
        self.names = list(weights)
        self.integer_weights = _to_integers(list(weights.values()))

    def assign(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """For the samples `start : stop` of the run: (index of the source in `names`, index of the sample within it)."""
        first, last = self._counts(start), self._counts(stop)
        sources = np.empty(stop - start, dtype=np.int64)
        within = np.empty(stop - start, dtype=np.int64)
        for source, (low, high) in enumerate(zip(first, last, strict=True)):
            samples = np.arange(low, high, dtype=np.int64)
            places = self._positions(source, samples) - start
            sources[places], within[places] = source, samples
        return sources, within

    def counts(self, n: int) -> dict[str, int]:
        """Samples of each source among the first `n`."""
        return dict(zip(self.names, self._counts(n), strict=True))

    def _counts(self, n: int) -> list[int]:
        if not 0 <= n <= MAX_SAMPLES:
            raise ValueError(f"a blend has from 0 to {MAX_SAMPLES} samples, not {n}")
        return [self._first_at_or_after(source, n) for source in range(len(self.names))]

    def _first_at_or_after(self, source: int, position: int) -> int:
        """Smallest k whose position is >= `position`: as many samples of the source stand before it."""
        weight, slack = self.integer_weights[source], len(self.names) + 1
        if not weight:
            return 0
        expected = position * weight // sum(self.integer_weights)  # within the number of sources of the truth
        low, high = max(0, expected - slack), min(position, expected + slack)
        while low < high:
            middle = (low + high) // 2
            if int(self._positions(source, np.array([middle]))[0]) < position:
                low = middle + 1
            else:
                high = middle
        return low

    def _positions(self, source: int, samples: Indices) -> Indices:
        """Position in the run of each sample k of `source`: how many samples (of any source) come before it.

        Sample j of another source comes before when (2j + 1) / w_other < (2k + 1) / w_source, or equal and listed first.
        """
        own = self.integer_weights[source]
        positions = np.zeros_like(samples)
        for other, weight in enumerate(self.integer_weights):
            time = (2 * samples + 1) * weight
            odd_below = time // own if other < source else (time - 1) // own
            positions += (odd_below + 1) // 2 if weight else 0
        return positions


class BlendHistory:
    """Segments of (first sample, weights), ascending, the first from 0 on. `names` are all sources that ever had a weight, in order of appearance."""

    def __init__(self, segments: Sequence[tuple[int, dict[str, float]]]) -> None:
        self.names = list(dict.fromkeys(name for _, weights in segments for name in weights))
        self._starts = [start for start, _ in segments]
        self._blends = [Blend(weights) for _, weights in segments]
        self._bases = [self.counts(start) for start in self._starts]
        """Samples of each source before each segment."""

    def assign(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """For the samples `start : stop` of the run: (index of the source in `names`, index of the sample within it)."""
        parts = [self._assign_within(segment, low, high) for segment, low, high in self._cut(start, stop)]
        sources, within = zip(*parts, strict=True) if parts else ((), ())
        empty = np.empty(0, dtype=np.int64)
        return np.concatenate([empty, *sources]), np.concatenate([empty, *within])

    def counts(self, n: int) -> dict[str, int]:
        """Samples of each source among the first `n`."""
        found = dict.fromkeys(self.names, 0)
        for segment, low, high in self._cut(0, n):
            for name, count in self._blends[segment].counts(high - low).items():
                found[name] += count
        return found

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(segment, first sample, last + 1) of each segment's part of `start : stop`."""
        ends = [*self._starts[1:], max(stop, self._starts[-1])]
        for segment, (begin, end) in enumerate(zip(self._starts, ends, strict=True)):
            low, high = max(start, begin), min(stop, end)
            if low < high:
                yield segment, low, high

    def _assign_within(self, segment: int, low: int, high: int) -> tuple[Indices, Indices]:
        blend, base, begin = self._blends[segment], self._bases[segment], self._starts[segment]
        sources, within = blend.assign(low - begin, high - begin)
        before = np.array([base[name] for name in blend.names], dtype=np.int64)
        places = np.array([self.names.index(name) for name in blend.names], dtype=np.int64)
        return places[sources], within + before[sources]


def _to_integers(weights: list[float]) -> list[int]:
    """Integers in proportion with sum `RESOLUTION` (largest remainders); no positive weight becomes zero."""
    total = sum(weights)
    exact = [weight / total * RESOLUTION for weight in weights]
    integers = [max(1, int(value)) if value > 0 else 0 for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: integers[i] - exact[i])
    for i in by_remainder[: max(0, RESOLUTION - sum(integers))]:
        integers[i] += 1
    return integers
