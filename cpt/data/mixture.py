"""`MixtureDataset`: the training data of a run, addressed by sample number alone; and the held-out windows of every source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpt.config.run import RunConfig
from cpt.core.errors import Problem, UserError
from cpt.core.paths import DataPaths
from cpt.core.records import DataManifest, MixturePlan
from cpt.data.blend import Blend, Indices
from cpt.data.indexed import IndexedTokens, Tokens
from cpt.data.stream import SourceStream, heldout_windows


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a run."""

    tokens: Tokens
    """[n, sequence_length + 1]: inputs are `[:, :-1]`, targets `[:, 1:]`."""
    source: Indices
    """[n], index into `MixtureDataset.names`."""


class MixtureDataset:
    """Sample `i` of a run is the same row whoever asks and whenever: all state is the number `i`."""

    def __init__(self, streams: Sequence[SourceStream], blend: Blend) -> None:
        self.names = blend.names
        self._streams = {stream.name: stream for stream in streams}
        self._blend = blend

    def batch(self, start: int, stop: int) -> Batch:
        """The samples `start : stop` of the run."""
        sources, within = self._blend.assign(start, stop)
        rows = [self._stream(source).sample(int(index)) for source, index in zip(sources, within, strict=True)]
        return Batch(np.stack(rows), sources)

    def sources(self, start: int, stop: int) -> Indices:
        """Which source each of the samples `start : stop` comes from, without reading them."""
        return self._blend.assign(start, stop)[0]

    def ledger(self, n: int) -> dict[str, int]:
        """Tokens of each source that the first `n` samples train on."""
        return {name: samples * self._streams[name].sequence_length for name, samples in self._blend.counts(n).items()}

    def epochs(self, n: int) -> dict[str, float]:
        """How often each source has been read by the first `n` samples."""
        return {name: self._streams[name].epochs(samples) for name, samples in self._blend.counts(n).items()}

    def documents(self, index: int) -> tuple[str, list[int]]:
        """Provenance of sample `index`: its source, and the documents of that source's train split it reads."""
        sources, within = self._blend.assign(index, index + 1)
        stream = self._stream(sources[0])
        return stream.name, stream.documents(int(within[0]))

    def _stream(self, source: int) -> SourceStream:
        return self._streams[self.names[source]]


def open_mixture(config: RunConfig, manifest: DataManifest, plan: MixturePlan) -> MixtureDataset:
    """The training data of a run, with the shares that were planned.

    Raises `UserError` when the plan was made for other data, or a file is missing, cut, or too small.
    """
    paths = config.runs.data(config.corpus.name)
    if plan.data_hash != manifest.content_hash:
        raise UserError(
            Problem(
                where=str(paths.manifest),
                what=f"holds data {manifest.content_hash[:10]}",
                why=f"this run was planned for data {plan.data_hash[:10]}: the corpus was prepared again since",
                fix="cpt launch again, as a new run; or go on with other data: cpt resume RUN --accept-changed-data",
            )
        )
    weights = {name: weight for name, weight in plan.weights.items() if weight > 0}
    streams = [_stream(config, paths, manifest, name) for name in weights]
    return MixtureDataset(streams, Blend(weights))


def _stream(config: RunConfig, paths: DataPaths, manifest: DataManifest, name: str) -> SourceStream:
    tokens = IndexedTokens(paths.root / manifest.source(name).train.prefix)
    return SourceStream(tokens, config.train.sequence_length, config.mixture.seed, name)


def open_heldout(config: RunConfig, manifest: DataManifest) -> dict[str, Tokens]:
    """Source -> [k, sequence_length + 1]: the first `evaluate.heldout_sequences` windows of its held-out split, the same every time."""
    root, length, count = config.runs.data(config.corpus.name).root, config.train.sequence_length, config.evaluate.heldout_sequences
    return {source.name: heldout_windows(IndexedTokens(root / source.heldout.prefix), length, count, source.name) for source in manifest.sources}
