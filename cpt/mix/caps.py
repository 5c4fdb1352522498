"""Caps on epochs: how many samples each source of a part may give, and where what a capped source leaves goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cpt.config.data import MixtureConfig
from cpt.core.errors import Problem, UserError
from cpt.core.manifest import SourceRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Domain, English general or non-English general: `share` of all tokens, divided among its sources by weight."""

    name: str
    share: float
    setting: str
    """The key that gives it its share."""
    weights: Mapping[str, float]
    allowed: Mapping[str, int]
    """Samples that each source's cap leaves it."""

    def quotas(self, samples: float) -> dict[str, float]:
        """Samples of each source out of `samples` of the run, whatever the caps say."""
        total = sum(self.weights.values())
        return {name: samples * self.share * weight / total if total else 0.0 for name, weight in self.weights.items()}

    def over(self, samples: float) -> list[str]:
        """Sources that would exceed their cap."""
        return [name for name, quota in self.quotas(samples).items() if quota > self.allowed[name]]

    def filled(self, samples: float) -> dict[str, float]:
        """As `quotas`, but a source over its cap gets what that allows, and the others share the rest. Raises `UserError` when nobody is left to."""
        capped: dict[str, int] = {}
        while True:
            left = samples * self.share - sum(capped.values())
            free = {name: weight for name, weight in self.weights.items() if name not in capped and weight > 0}
            quotas = {name: left * weight / sum(free.values()) for name, weight in free.items()}
            over = {name: self.allowed[name] for name, quota in quotas.items() if quota > self.allowed[name]}
            if not over:
                break
            capped |= over
        if not free and left > 0.5:
            raise UserError(self._unfilled(left, samples))
        return {name: capped.get(name, quotas.get(name, 0.0)) for name in self.weights}

    def _unfilled(self, missing: float, samples: float) -> Problem:
        most = 1 - missing / samples / self.share
        return Problem(
            where=self.setting,
            what=f"gives {self.name} sources {self.share:.1%} of the tokens",
            why=f"their epoch caps allow {most:.1%} of that, and every one of them is at its cap",
            fix="a smaller share, fewer train.train_tokens, more text, or higher mixture.max_epochs and mixture.epoch_caps",
        )


def redistribute(parts: Sequence[Part], samples: int) -> dict[str, int]:
    """Whole samples of each source that sum to `samples`: a blend with weights in whole samples gives just these, so no cap is passed by even one."""
    exact = {name: quota for part in parts for name, quota in part.filled(samples).items()}
    whole = {name: int(quota) for name, quota in exact.items()}
    by_remainder = sorted(exact, key=lambda name: whole[name] - exact[name])
    for name in by_remainder[: samples - sum(whole.values())]:
        whole[name] += 1
    return whole


PARTS = ("domain", "English general", "non-English general")
"""Each gets a share of all tokens."""


def part_of(group: str, language: str) -> str:
    """Which of `PARTS` a source belongs to."""
    if group == "domain":
        return PARTS[0]
    return PARTS[1] if language == "en" else PARTS[2]


def cap(mixture: MixtureConfig, source: str) -> float:
    """Epochs that a source is allowed over the whole run."""
    return mixture.epoch_caps.get(source, mixture.max_epochs)


def windows(source: SourceRecord, sequence_length: int) -> int:
    """Samples in one epoch of a source."""
    return max(0, source.train.tokens - 1) // sequence_length
