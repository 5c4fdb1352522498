"""What was changed in a run after it began: `amendments.json`, one entry for each `cpt resume RUN key=value ...`.

An amendment holds from the step and the sample at which it was made. A run that goes back before it, to an older checkpoint, repeats what lies
between as it was, and the amendment takes hold again at the same place: learning rate and samples stay pure functions of step and sample number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from cpt.core.artifacts import Artifact
from cpt.core.paths import RunPaths
from cpt.core.records import MixturePlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Change(Artifact):
    """One setting, by its dotted path; None where it was not there."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        now = f"{self.key} not set" if self.new is None else f"{self.key}={self.new}"
        return f"{now} (was {'not set' if self.old is None else self.old})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Amendment(Artifact):
    """Made between two attempts, after `step` updates; `time` in seconds since the epoch."""

    time: float
    step: int
    sample: int
    """The first that is read under it; those before stay as they were."""
    changes: list[Change]
    mixture: MixturePlan
    """From `sample` on."""
    tokens: dict[str, int]
    """By source, trained on before it."""
    learning_rate: float
    """Of the last update before it; 0 when there was none."""
    accepted: list[str] = field(default_factory=list)
    """Sources whose tokens are others than those trained on, which a human took."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Amendments(Artifact):
    """All of a run (`amendments.json`), in the order in which they take hold."""

    amendments: list[Amendment] = field(default_factory=list)

    @classmethod
    def of(cls, run: RunPaths) -> Self:
        """Those of a run; none when nothing was amended."""
        return cls.load(run.amendments) if run.amendments.is_file() else cls()


@dataclass(frozen=True, slots=True)
class Segment:
    """From sample `start` of a run on, until the next one starts, this mixture."""

    start: int
    mixture: MixturePlan


def segments(first: MixturePlan, amendments: Sequence[Amendment] = ()) -> list[Segment]:
    """What a run reads: as launched, then as amended. An amendment that changes nothing of what is read starts no segment."""
    found = [Segment(0, first)]
    for amendment in amendments:
        if len(found) > 1 and found[-1].start == amendment.sample:
            found.pop()
        if amendment.sample == 0 or amendment.mixture.reading == found[-1].mixture.reading:
            found[-1] = Segment(found[-1].start, amendment.mixture)
        else:
            found.append(Segment(amendment.sample, amendment.mixture))
    return found
