"""`Feed`: the next global batch, this rank's rows of it already on the device. All state is in `TrainState`; what was read ahead is no state."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cpt.config.run import RunConfig
from cpt.data import Ledger, MixtureDataset, row_checksums
from cpt.data.position import next_sample
from cpt.data.reading import Reader
from cpt.engine import Engine
from cpt.train.loaders import Loader, Rows, open_loader
from cpt.train.state import TrainState


@dataclass(frozen=True)
class GlobalBatch:
    """One step's n sequences, of which this replica holds m."""

    samples: range
    """Their numbers in the run."""
    tokens: torch.Tensor
    """[m, s + 1] int64: this replica's rows, on the device."""
    sources: npt.NDArray[np.int64]
    """[n]: index into the mixture's sources."""
    checksums: npt.NDArray[np.int64]
    """[n]: CRC-32 of every row."""


Stand = tuple[int, Sequence[Sequence[int]]]
"""(samples trained on, windows skipped): the numbers of all samples that come follow from it."""


def stand(state: TrainState, more: int = 0) -> Stand:
    """Where `state` stands, or will after training on `more` samples; a copy, since states change in place."""
    return state.consumed_samples + more, [list(window) for window in state.skipped]


class Feed:
    """Reads ahead along the samples that a state would come to, and starts again where another state stands (a skipped window, a rollback)."""

    def __init__(self, data: MixtureDataset, engine: Engine, config: RunConfig) -> None:
        self.data, self._engine, self._config = data, engine, config
        self._size = config.train.global_batch_size
        self._rows = engine.rows(self._size)
        self._loader: Loader | None = None
        self._expected: Stand | None = None

    def next(self, state: TrainState) -> GlobalBatch:
        """The batch that comes after what `state` has trained on. Collective; raises what reading it raised."""
        if self._loader is None or self._expected != stand(state):
            self._loader = self._start(state)
        rows, tokens = self._loader.next()
        self._expected = stand(state, self._size)
        samples = range(rows.start, rows.start + self._size)
        checksums = self._engine.gather(torch.from_numpy(rows.checksums), (len(self._rows),), torch.int64)
        return GlobalBatch(samples, tokens, self.data.sources(samples.start, samples.stop), checksums)

    def ledger(self, state: TrainState) -> Ledger:
        """What `state` has trained on."""
        return self.data.ledger(state.consumed_samples, state.skipped)

    def note(self, state: TrainState) -> None:
        """Write into `state` where it stands in its data, for the next checkpoint."""
        state.data = self.data.position(state.consumed_samples, state.skipped).as_dict()

    def close(self) -> None:
        """End the threads."""
        if self._loader:
            self._loader.close()
        self._loader = None

    def _start(self, state: TrainState) -> Loader:
        self.close()
        consumed, skipped = stand(state)
        starts = (next_sample(number, skipped) for number in itertools.count(consumed, self._size))
        return open_loader(self._config.loader, Reader(self._read, starts, self._config.loader.depth), len(self._rows))

    def _read(self, start: int) -> Rows:
        tokens = self.data.batch(start + self._rows.start, start + self._rows.stop).tokens
        return Rows(start, tokens, row_checksums(tokens))
