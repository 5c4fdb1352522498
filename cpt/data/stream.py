"""`SourceStream`: one source as an endless, randomly accessible row of samples, a pure function of (tokens, length, seed, name).

1. The documents of an epoch are put in a random order and concatenated.
2. The row is cut into windows of `sequence_length` tokens; each window reads one token more, the first of the next window, as its last
   target. Nothing is padded; less than one window is left over at the end of an epoch, other tokens in each.
3. The windows of the epoch are put in a random order. Sample `i` is in epoch `i // samples_per_epoch`.

Both orders come from `default_rng([seed, crc32(name), epoch])`, so any sample can be read at once, from any process, after any restart.
"""

from __future__ import annotations

from threading import Lock
from zlib import crc32

import numpy as np
import numpy.typing as npt

from cpt.core.errors import Problem, UserError
from cpt.data.indexed import IndexedTokens, Tokens


class SourceStream:
    """Samples of one source."""

    def __init__(self, tokens: IndexedTokens, sequence_length: int, seed: int, name: str) -> None:
        """Raises `UserError` when the source cannot fill one window."""
        self.name = name
        self.sequence_length = sequence_length
        self.samples_per_epoch = max(0, tokens.tokens - 1) // sequence_length
        self.tokens = tokens
        self._key = [seed, crc32(name.encode())]
        self._epoch = -1
        self._lock = Lock()
        if not self.samples_per_epoch:
            raise too_small(name, "train", tokens, sequence_length)

    def sample(self, index: int) -> Tokens:
        """Sample `index`: [sequence_length + 1]."""
        return np.concatenate([self.tokens.read(first, last) for _, first, last in self.pieces(index)])

    def documents(self, index: int) -> list[int]:
        """Which documents of the split sample `index` reads, in order."""
        return [document for document, _, _ in self.pieces(index)]

    def pieces(self, index: int) -> list[tuple[int, int, int]]:
        """(document, first token, last token + 1) of each part of sample `index`, in tokens of the whole split."""
        with self._lock:  # a reader's thread goes ahead, provenance looks back
            return self._pieces_of(*divmod(index, self.samples_per_epoch))

    def _pieces_of(self, epoch: int, place: int) -> list[tuple[int, int, int]]:
        self._shuffle(epoch)
        start = int(self._windows[place]) * self.sequence_length
        stop = start + self.sequence_length + 1
        pieces = []
        position = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            document = int(self._order[position])
            row_end, token_end = int(self._ends[position]), int(self.tokens.offsets[document + 1])
            first = token_end - (row_end - start)
            last = min(token_end, first + stop - start)
            if last > first:
                pieces.append((document, first, last))
            start += last - first
            position += 1
        return pieces

    def _shuffle(self, epoch: int) -> None:
        """Orders of `epoch`; kept until another epoch is asked for."""
        if epoch == self._epoch:
            return
        generator = np.random.default_rng([*self._key, epoch])
        self._order: npt.NDArray[np.int64] = generator.permutation(len(self.tokens))
        self._windows: npt.NDArray[np.int64] = generator.permutation(self.samples_per_epoch)
        self._ends = np.cumsum(np.diff(self.tokens.offsets)[self._order])
        self._epoch = epoch


def heldout_windows(tokens: IndexedTokens, sequence_length: int, count: int, name: str) -> Tokens:
    """The first `count` windows of a split in stored order, fewer when it is small: [k, sequence_length + 1]; never padded.

    Raises `UserError` when it cannot fill one window.
    """
    available = min(count, max(0, tokens.tokens - 1) // sequence_length)
    if not available:
        raise too_small(name, "heldout", tokens, sequence_length)
    return np.stack([tokens.read(start, start + sequence_length + 1) for start in range(0, available * sequence_length, sequence_length)])


def too_small(name: str, split: str, tokens: IndexedTokens, sequence_length: int) -> UserError:
    """A split of a source does not fill one window."""
    return UserError(
        Problem(
            where=f"corpus.sources.{name}",
            what=f"has {tokens.tokens} tokens in {split}",
            why=f"one window reads train.sequence_length + 1 = {sequence_length + 1}",
            fix="give the source more text, raise corpus.heldout_fraction, or lower train.sequence_length",
        )
    )
