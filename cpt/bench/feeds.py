"""What `cpt bench loaders` compares: ways from synthetic token files to a batch on the device, each opened anew for every measurement."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from cpt.config.loader import LoaderConfig, LoaderKind
from cpt.config.run import RunConfig
from cpt.core.amendments import Segment
from cpt.core.errors import CptError
from cpt.core.records import MixturePlan, SourceShare
from cpt.data import MixtureDataset, row_checksums
from cpt.data.indexed import IndexedTokens, IndexedWriter, token_dtype
from cpt.data.reading import Reader
from cpt.data.stream import SourceStream
from cpt.train.loaders import MemmapLoader, Rows, open_loader

_WEIGHTS = {"domain": 0.5, "general": 0.45, "other_languages": 0.05}
_DOCUMENT = (100, 4000)
"""Tokens."""


class Batches(Protocol):
    """One way, opened."""

    def next(self) -> Any:
        """The next batch, on the device or on its way there."""

    def close(self) -> None:
        """End what it has started."""


Ways = Mapping[str, Callable[[], Batches]]


class WhenAsked(Reader[Rows]):
    """A reader without a thread: what reading ahead is measured against."""

    def __init__(self, read: Callable[[int], Rows], starts: Iterator[int]) -> None:
        self._now = (read(start) for start in starts)

    def next(self) -> Rows:
        """Read it now."""
        return next(self._now)

    def close(self) -> None:
        """There is nothing to end."""


def open_ways(config: RunConfig, folder: Path, tokens: int, workers: int, batches: int) -> Ways:
    """Name -> way, over `tokens` tokens that are written to `folder`. Raises `CptError` when ours are not the same rows."""
    from cpt.bench.gpt_dataset import GPTDatasetLoader  # imports megatron, which cpt.engine must precede

    prefixes = _write(folder, tokens, config)
    data, size = _mixture(prefixes, config), config.train.global_batch_size

    def read(start: int) -> Rows:
        rows = data.batch(start, start + size).tokens
        return Rows(start, rows, row_checksums(rows))

    def ahead(kind: LoaderKind) -> Batches:
        depth = config.loader.depth
        return open_loader(LoaderConfig(kind=kind, depth=depth), Reader(read, itertools.count(0, size), depth), size)

    ours: dict[str, Callable[[], Batches]] = {
        "plain": lambda: MemmapLoader(WhenAsked(read, itertools.count(0, size))),
        "memmap": lambda: ahead(LoaderKind.memmap),
        "dali": lambda: ahead(LoaderKind.dali),
    }
    _require_same_rows(ours)
    weights = {prefix: _WEIGHTS[name] for name, prefix in prefixes.items()}
    return {**ours, "megatron": lambda: GPTDatasetLoader(config, weights, batches * size, workers)}


def _write(folder: Path, tokens: int, config: RunConfig) -> dict[str, Path]:
    """Name -> prefix of a token file of random documents; at least two windows each."""
    dice, prefixes = np.random.default_rng(config.seed), {name: folder / name for name in _WEIGHTS}
    for name, prefix in prefixes.items():
        left = max(round(tokens * _WEIGHTS[name]), 2 * config.train.sequence_length + 1)
        with IndexedWriter(prefix, token_dtype(config.model.vocab_size)) as writer:
            while left > 0:
                length = int(dice.integers(*_DOCUMENT))
                writer.add(dice.integers(0, config.model.vocab_size, length))
                left -= length
    return prefixes


def _mixture(prefixes: Mapping[str, Path], config: RunConfig) -> MixtureDataset:
    length = config.train.sequence_length
    streams = [SourceStream(IndexedTokens([prefix]), length, config.seed, name) for name, prefix in prefixes.items()]
    shares = [
        SourceShare(
            name=stream.name,
            group=stream.name,
            language="",
            weight=_WEIGHTS[stream.name],
            planned_tokens=0,
            available_tokens=stream.samples_per_epoch * length + 1,
            epoch_tokens=stream.samples_per_epoch * length,
            epoch_cap=float("inf"),
            sha256="",
        )
        for stream in streams
    ]
    return MixtureDataset(streams, [Segment(0, MixturePlan(train_tokens=config.train.train_tokens, shares=shares, data_hash=""))], config)


def _require_same_rows(ways: Ways) -> None:
    """Other rows would be other work."""
    first: list[torch.Tensor] = []
    for way in ways.values():
        batches = way()
        first.append(batches.next()[1].cpu().clone())
        batches.close()
    if not all(torch.equal(first[0], other) for other in first):
        raise CptError(f"{', '.join(ways)} do not give the same rows: nothing to compare")
