"""Do the shares of tokens that a run reads equal those that were planned, over all segments of its mixture?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cpt.core.amendments import Segment
from cpt.data.position import Windows, spans

TOLERANCE = 0.001
"""Of all tokens: 0.1 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareCheck:
    """Shares of all tokens by source."""

    planned: Mapping[str, float]
    realized: Mapping[str, float]
    allowed: float

    @property
    def largest(self) -> tuple[str, float]:
        """The source that is furthest from its plan, and by how much of all tokens."""
        return max(((name, abs(self.realized.get(name, 0.0) - share)) for name, share in self.planned.items()), key=lambda item: item[1])

    @property
    def good(self) -> bool:
        """Whether every source got what was planned for it, and no other source got anything."""
        return self.largest[1] <= self.allowed and self.planned.keys() >= {name for name, share in self.realized.items() if share > 0}


def compare_shares(segments: Sequence[Segment], tokens: Mapping[str, int], consumed: int, skipped: Windows = ()) -> ShareCheck:
    """`tokens` by source of the first `consumed` sequences that are not `skipped`, against the plan.

    A source cannot come nearer to its share than to whole samples: two for each stretch that is read in one go are allowed beside `TOLERANCE`, which
    matters only to runs of less than a few thousand samples.
    """
    stretches, planned = 0, dict.fromkeys((name for segment in segments for name in segment.mixture.weights), 0.0)
    for span in spans(0, consumed, skipped):
        for segment, count in _cut(segments, span):
            stretches += 1
            for name, weight in segment.mixture.weights.items():
                planned[name] += weight * count / consumed
    total = sum(tokens.values())
    realized = {name: count / total for name, count in tokens.items()}
    return ShareCheck(planned=planned, realized=realized, allowed=max(TOLERANCE, 2 * stretches / consumed))


def _cut(segments: Sequence[Segment], span: range) -> list[tuple[Segment, int]]:
    """Segments that a span of samples lies in, and how many of its samples each has."""
    ends = [*(segment.start for segment in segments[1:]), max(span.stop, segments[-1].start)]
    counts = [min(span.stop, end) - max(span.start, segment.start) for segment, end in zip(segments, ends, strict=True)]
    return [(segment, count) for segment, count in zip(segments, counts, strict=True) if count > 0]
