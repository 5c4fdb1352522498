"""Is what lies in a prepared corpus what was prepared? Reads every byte of every token file, its index and its ids.

Beyond the hash, documents are held against the tokens themselves: each ends with the end-of-document token, which stands nowhere else. A text that
spells that token out becomes one when a tokenizer is asked carelessly, and no hash would tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpt.core.errors import UserError
from cpt.core.manifest import DataManifest, ShardRecord
from cpt.data.indexed import bin_path, ids_path, idx_path, index_bytes, read_index

_PIECE = 8 * 2**20
_THREADS = 8
"""Reading waits for the disk, and hashing leaves the interpreter lock."""

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Damage:
    """One file, and what is wrong with it."""

    file: Path
    what: str


@dataclass(frozen=True, slots=True)
class _Scan:
    """What is in a `.bin`: hash, bytes, `ends[i]` the token after the i-th end-of-document token, and the largest id."""

    sha256: str
    bytes: int
    ends: Offsets
    largest: int


def token_bytes(manifest: DataManifest) -> int:
    """Of all token files."""
    return sum(shard.tokens for shard in _shards(manifest)) * np.dtype(manifest.dtype).itemsize


def corpus_damage(root: Path, manifest: DataManifest, advance: Callable[[int], None] = lambda _: None) -> list[Damage]:
    """What is wrong, file by file, in the manifest's order; `root` is its folder. `advance` is told bytes as they are read, by several threads.

    Raises OSError when the disk does not answer: that says nothing of the corpus.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda shard: list(_shard_damage(root / shard.prefix, shard, manifest, advance)), _shards(manifest))
        return [damage for each in found for damage in each]


def _shards(manifest: DataManifest) -> list[ShardRecord]:
    return [shard for source in manifest.sources for split in (source.train, source.heldout) for shard in split.shards]


def _shard_damage(prefix: Path, shard: ShardRecord, manifest: DataManifest, advance: Callable[[int], None]) -> Iterator[Damage]:
    paths = bin_path(prefix), idx_path(prefix), ids_path(prefix)
    if missing := [path for path in paths if not path.is_file()]:
        yield from (Damage(path, "is not there") for path in missing)
        return
    offsets, dtype = None, np.dtype(manifest.dtype).newbyteorder("<")
    try:
        found, offsets = read_index(paths[1])
        yield from (Damage(paths[1], what) for what in _wrong_index(paths[1], offsets, found, shard, dtype))
    except UserError as error:
        yield Damage(paths[1], error.problems[0].what)
    scan = _scan(paths[0], dtype, manifest.end_of_document_id, advance)
    yield from (Damage(paths[0], what) for what in _wrong_tokens(scan, offsets, shard, manifest))
    yield from (Damage(paths[2], what) for what in _wrong_ids(paths[2], shard.documents))


def _scan(path: Path, dtype: np.dtype[Any], end_of_document: int, advance: Callable[[int], None]) -> _Scan:
    hasher, buffer, ends, largest, done = hashlib.sha256(), memoryview(bytearray(_PIECE)), [np.empty(0, dtype=np.int64)], -1, 0
    with open(path, "rb") as file:
        while size := file.readinto(buffer):
            hasher.update(buffer[:size])
            tokens = np.frombuffer(buffer, dtype, size // dtype.itemsize)
            ends.append(np.flatnonzero(tokens == end_of_document) + done // dtype.itemsize + 1)
            largest = max(largest, int(tokens.max(initial=-1) if tokens.dtype.kind == "i" else tokens.max(initial=0)))
            done += size
            advance(size)
    return _Scan(hasher.hexdigest(), done, np.concatenate(ends), largest)


def _wrong_index(path: Path, offsets: Offsets, found: np.dtype[Any], shard: ShardRecord, dtype: np.dtype[Any]) -> Iterator[str]:
    """Nothing reads the pointers of an index here, but Megatron does: it must be the index of its documents to the byte."""
    if found != dtype:
        yield f"says {found.name} tokens instead of {dtype.name}"
    if (documents := len(offsets) - 1) != shard.documents:
        yield f"has {documents:,} documents instead of {shard.documents:,}"
    if int(offsets[-1]) != shard.tokens:
        yield f"promises {int(offsets[-1]):,} tokens instead of {shard.tokens:,}"
    if path.read_bytes() != index_bytes(np.diff(offsets), found):
        yield "has other bytes than the index of its documents"


def _wrong_tokens(scan: _Scan, offsets: Offsets | None, shard: ShardRecord, manifest: DataManifest) -> Iterator[str]:
    promised = shard.tokens * np.dtype(manifest.dtype).itemsize
    if scan.bytes != promised:
        yield f"holds {scan.bytes:,} bytes instead of {promised:,}"
        return
    if scan.sha256 != shard.sha256:
        yield "has other bytes than were written"
    if scan.largest >= manifest.vocab_size:
        yield f"has token id {scan.largest}, the tokenizer's largest is {manifest.vocab_size - 1}"
    if offsets is None:
        return
    inside, open_ended = np.setdiff1d(scan.ends, offsets[1:]), np.setdiff1d(offsets[1:], scan.ends)
    if inside.size:
        token = int(inside[0]) - 1
        document = int(np.searchsorted(offsets, token, side="right")) - 1
        yield f"has {inside.size:,} end-of-document token(s) inside a document, the first in document {document:,}, token {token:,}"
    if open_ended.size:
        document = int(np.searchsorted(offsets, open_ended[0], side="left")) - 1
        yield f"has {open_ended.size:,} document(s) that do not end with the end-of-document token, the first is {document:,}"


def _wrong_ids(path: Path, documents: int) -> Iterator[str]:
    lines = path.read_bytes().split(b"\n")
    if (last := lines.pop()) or len(lines) != documents:
        yield f"has {len(lines) + bool(last):,} lines for {documents:,} documents" + (", the last one cut" if last else "")
    wrong = next((number for number, line in enumerate(lines) if len(line) < 2 or not line.startswith(b'"') or not line.endswith(b'"')), None)
    if wrong is not None:
        yield f"line {wrong + 1:,} is no id: a JSON string is"
