"""One save of our engine's state, timed. Imports the engine, which prepares torch: nobody else's process may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cpt.checkpoint import CheckpointStore, Keep
from cpt.engine import Engine
from cpt.train.saving import Flight, Saver, Tier, agree_on_writing
from cpt.train.state import TrainState


class Saves:
    """Keeps its staging memory from one save to the next, as training does."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.saver = Saver(engine, CheckpointStore(folder, Keep(last=1)), self, asynchronous=True)
        self.found: dict[str, float] = {}

    def save(self, asynchronous: bool, step: int, updates: int, update: Callable[[], object]) -> dict[str, float]:
        """Save, make `updates`, each followed by the look that the loop takes, wait for what is left; on rank 0 seconds and bytes."""
        self.saver.asynchronous = asynchronous
        self.saver.save(TrainState(step=step), lambda _phase, _step: None)
        for _ in range(updates):
            update()
            self.saver.poll(agree_on_writing([self.saver.writing])[0])
        self.saver.finish()
        return self.found

    def staged(self, tier: Tier, step: int, seconds: float) -> None:
        """Said again by `saved`."""

    def saved(self, tier: Tier, flight: Flight, size: int, seconds: float) -> None:
        """On rank 0, once the checkpoint is complete."""
        self.found = {"bytes": size, "seconds": seconds, "staging": flight.staging, "waited": flight.waited}
