"""Held-out loss per source while training: the same windows every time, so that curves are comparable."""

from __future__ import annotations

import numpy as np

from cpt.config.run import RunConfig
from cpt.core.manifest import DataManifest
from cpt.data import open_heldout
from cpt.engine import Engine


class Heldout:
    """Domain and general loss are means over sources, each source counting once."""

    def __init__(self, config: RunConfig, manifest: DataManifest) -> None:
        self.windows = open_heldout(config, manifest)
        self.manifest = manifest
        self.micro_batch_size = config.train.micro_batch_size

    def evaluate(self, engine: Engine) -> dict[str, float]:
        """Metric name -> value, nats a token and bits per byte. Collective."""
        losses = self._by_source(engine)
        values: dict[str, float] = {}
        for name, loss in losses.items():
            values[f"heldout/loss/{name}"] = loss
            values[f"heldout/bits_per_byte/{name}"] = self.manifest.source(name).heldout.bits_per_byte(loss)
        for group in {source.group for source in self.manifest.sources}:
            values[f"heldout/loss/{group}"] = float(np.mean([losses[s.name] for s in self.manifest.sources if s.group == group]))
        return values

    def _by_source(self, engine: Engine) -> dict[str, float]:
        """All windows in one go: fewer, fuller pipelines."""
        rows = np.concatenate(list(self.windows.values()))
        sequence_losses = engine.token_losses(rows, self.micro_batch_size).mean(axis=1, dtype=np.float64)
        ends = np.cumsum([len(windows) for windows in self.windows.values()])
        return {name: float(part.mean()) for name, part in zip(self.windows, np.split(sequence_losses, ends[:-1]), strict=True)}
