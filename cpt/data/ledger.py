"""`Ledger`: what a run has trained on, by source, language and group. Tokens are sequences x `train.sequence_length`, as trained; never estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cpt.core.records import SourceShare


@dataclass(frozen=True, slots=True)
class Ledger:
    """A pure function of the sample number: see `MixtureDataset.ledger`."""

    tokens: dict[str, int]
    """By source."""
    shares: Mapping[str, SourceShare]
    """What a plan knows of each source."""

    @property
    def total(self) -> int:
        """Of all sources."""
        return sum(self.tokens.values())

    @property
    def epochs(self) -> dict[str, float]:
        """How often each source was read; whole windows count, as training reads them."""
        return {name: tokens / max(1, self.shares[name].epoch_tokens) for name, tokens in self.tokens.items()}

    @property
    def by_language(self) -> dict[str, int]:
        """Tokens."""
        return self._by({name: share.language for name, share in self.shares.items()})

    @property
    def by_group(self) -> dict[str, int]:
        """Tokens of domain and general sources."""
        return self._by({name: share.group for name, share in self.shares.items()})

    def metrics(self) -> dict[str, float]:
        """For a row of the journal."""
        return (
            {f"data/tokens/{name}": count for name, count in self.tokens.items()}
            | {f"data/epochs/{name}": round(value, 6) for name, value in self.epochs.items()}
            | {f"data/language_tokens/{name}": count for name, count in self.by_language.items()}
            | {f"data/group_tokens/{name}": count for name, count in self.by_group.items()}
        )

    def _by(self, kinds: Mapping[str, str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, tokens in self.tokens.items():
            found[kinds[name]] = found.get(kinds[name], 0) + tokens
        return found
