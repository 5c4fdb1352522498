"""What survives a kill: if it is not in here (or in the model or the optimizer), it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


@dataclass(slots=True)
class TrainState:
    """How far training has come. Which sample comes next follows from `consumed_samples` and `skipped`, and from nothing else."""

    step: int = 0
    """Optimizer updates done, those included that were skipped."""
    consumed_samples: int = 0
    """Sequences trained on."""
    skipped: list[list[int]] = field(default_factory=list)
    """[start, stop) in sample numbers: never trained on."""
    data: dict[str, Any] = field(default_factory=dict)
    """`DataPosition` as plain values: what was trained on, by source."""
    losses: list[float] = field(default_factory=list)
    """Of the last `train.anomaly.window` updates that were made."""
    grad_norms: list[float] = field(default_factory=list)
    """Of the same."""
    skips: int = 0
    """Updates skipped in a row."""
    rollbacks: int = 0
    saved_step: int = 0
    """Of the newest checkpoint; known to all ranks without a look at the file system."""

    domain_loss: float | None = None
    """Held-out loss of the domain at this very step, nats a token; None where it was not measured."""

    def advance(self, samples: int) -> None:
        """One update on `samples` sequences was made."""
        self.step += 1
        self.consumed_samples += samples
        self.skips = 0
        self.domain_loss = None

    def skip(self, samples: range) -> None:
        """One update was not made; its `samples`, by number, are spent."""
        self.step += 1
        self.skips += 1
        self.skipped.append([samples.start, samples.stop])
        self.domain_loss = None

    def remember(self, loss: float, grad_norm: float, window: int) -> None:
        """What the next updates are judged by."""
        self.losses = [*self.losses, loss][-window:]
        self.grad_norms = [*self.grad_norms, grad_norm][-window:]

    def become(self, other: Self) -> None:
        """Take over all of another state; whoever holds this one goes on with that."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `state_dict`."""
        return cls(**values)
