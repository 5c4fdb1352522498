"""`MixtureDataset`: the training data of a run, addressed by sample number alone; and the held-out windows of every source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpt.config.run import RunConfig
from cpt.core.amendments import Segment
from cpt.core.errors import Problem, UserError
from cpt.core.manifest import DataManifest
from cpt.core.paths import DataPaths
from cpt.core.records import DataPosition, MixturePlan
from cpt.data.blend import MAX_SAMPLES, BlendHistory, Indices
from cpt.data.identity import data_fingerprint
from cpt.data.indexed import IndexedTokens, Tokens
from cpt.data.ledger import Ledger
from cpt.data.position import Windows, next_sample, passed
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

    def __init__(self, streams: Sequence[SourceStream], segments: Sequence[Segment], config: RunConfig, readable: int = 0) -> None:
        """`streams` of all sources that are read from sample `readable` on: what came before it was read from tokens that are gone."""
        self._blend = BlendHistory([(segment.start, _weights(segment)) for segment in segments])
        self.names = self._blend.names
        self._streams = {stream.name: stream for stream in streams}
        self._segments, self._config, self.readable = segments, config, readable
        self._shares = {share.name: share for segment in segments for share in segment.mixture.shares}

    def batch(self, start: int, stop: int) -> Batch:
        """The samples `start : stop` of the run. Raises `UserError` when the tokens they had are gone."""
        self.require_readable(start)
        sources, within = self._blend.assign(start, stop)
        rows = [self._stream(source).sample(int(index)) for source, index in zip(sources, within, strict=True)]
        return Batch(np.stack(rows), sources)

    def require_readable(self, sample: int) -> None:
        """Raises `UserError` when `sample` was planned for tokens that the corpus does not hold any more."""
        if sample < self.readable:
            raise UserError(
                Problem(
                    where=str(self._config.runs.data(self._config.corpus.name).manifest),
                    what=f"has no tokens, or others, for sample {sample}",
                    why="this run was planned for others: the corpus was prepared again since",
                    fix="restore the corpus; cpt launch again, as a new run; or go on with other data: cpt resume RUN --accept-changed-data",
                )
            )

    def sources(self, start: int, stop: int) -> Indices:
        """Which source each of the samples `start : stop` comes from, without reading them."""
        return self._blend.assign(start, stop)[0]

    def ledger(self, consumed: int, skipped: Windows = ()) -> Ledger:
        """What the first `consumed` sequences that are not `skipped` train on."""
        number = next_sample(consumed, skipped)
        counts = self._blend.counts(number)
        for window in passed(number, skipped):
            before, after = self._blend.counts(window.start), self._blend.counts(window.stop)
            counts = {name: count - after[name] + before[name] for name, count in counts.items()}
        length = self._config.train.sequence_length
        return Ledger({name: count * length for name, count in counts.items()}, self._shares)

    def position(self, consumed: int, skipped: Windows = ()) -> DataPosition:
        """Where a run stands that has trained on `consumed` sequences."""
        number = next_sample(consumed, skipped)
        tokens = {name: count for name, count in self.ledger(consumed, skipped).tokens.items() if count}
        return DataPosition(fingerprint=data_fingerprint(self._segments, self._config, number), next_sample=number, tokens=tokens)

    def documents(self, index: int) -> tuple[str, list[int]]:
        """Provenance of sample `index`: its source, and the documents of that source's train split it reads."""
        stream, within = self.locate(index)
        return stream.name, stream.documents(within)

    def locate(self, index: int) -> tuple[SourceStream, int]:
        """The stream that sample `index` of the run comes from, and its number there. Raises `UserError` when the tokens it had are gone."""
        self.require_readable(index)
        sources, within = self._blend.assign(index, index + 1)
        return self._stream(sources[0]), int(within[0])

    def _stream(self, source: int) -> SourceStream:
        return self._streams[self.names[source]]


def open_mixture(config: RunConfig, manifest: DataManifest, segments: Sequence[Segment]) -> MixtureDataset:
    """The training data of a run, with the shares that were planned.

    Raises `UserError` when the last segment was planned for other tokens, or a file is missing, cut, or too small. What earlier segments read may
    be gone: `require_readable` says whether a sample is still there.
    """
    stale = [index for index, segment in enumerate(segments) if changed_sources(segment.mixture, manifest)]
    readable = [*(segment.start for segment in segments[1:]), MAX_SAMPLES][stale[-1]] if stale else 0
    names = dict.fromkeys(name for segment in segments if segment.start >= readable for name in _weights(segment))
    paths = config.runs.data(config.corpus.name)
    data = MixtureDataset([_stream(config, paths, manifest, name) for name in names], segments, config, readable)
    data.require_readable(segments[-1].start)
    return data


def changed_sources(mixture: MixturePlan, manifest: DataManifest) -> list[str]:
    """Sources that a mixture reads and whose tokens are gone from a corpus, or are others there."""
    there = {source.name: source.train.sha256 for source in manifest.sources}
    return [name for name, _, sha256 in mixture.reading if there.get(name) != sha256]


def _weights(segment: Segment) -> dict[str, float]:
    return {name: weight for name, weight, _ in segment.mixture.reading}


def _stream(config: RunConfig, paths: DataPaths, manifest: DataManifest, name: str) -> SourceStream:
    tokens = IndexedTokens(manifest.source(name).train.prefixes(paths.root))
    return SourceStream(tokens, config.train.sequence_length, config.seed, name)


def open_heldout(config: RunConfig, manifest: DataManifest) -> dict[str, Tokens]:
    """Source -> [k, sequence_length + 1]: the first `evaluate.heldout_sequences` windows of its held-out split, the same every time."""
    root, length, count = config.runs.data(config.corpus.name).root, config.train.sequence_length, config.evaluate.heldout_sequences
    return {source.name: heldout_windows(IndexedTokens(source.heldout.prefixes(root)), length, count, source.name) for source in manifest.sources}
