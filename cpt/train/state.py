"""What survives a kill: if it is not in here (or in the model or the optimizer), it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(slots=True)
class TrainState:
    """How far training has come. The data position is `consumed_samples` alone."""

    step: int = 0
    """Optimizer updates done."""
    consumed_samples: int = 0
    saved_step: int = 0
    """Of the newest checkpoint; known to all ranks without a look at the file system."""

    domain_loss: float | None = None
    """Held-out loss of the domain at this very step, nats a token; None where it was not measured."""

    def advance(self, samples: int) -> None:
        """One update on `samples` sequences was made."""
        self.step += 1
        self.consumed_samples += samples
        self.domain_loss = None

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `state_dict`."""
        return cls(**values)
