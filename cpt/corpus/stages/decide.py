"""`decide`: the fate of every document, and what training text must not hold. One task that reads numbers of all documents, and texts of held-out ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cpt.config.data import CorpusConfig
from cpt.core.errors import Problem, UserError
from cpt.corpus.clusters import Numbers, components
from cpt.corpus.documents import Document, draw
from cpt.corpus.inputs import MOST_ROWS, Shard
from cpt.corpus.stages.match import below_cut
from cpt.corpus.stages.records import Pair, SelectRecord, reasons
from cpt.corpus.stages.select import Selected
from cpt.corpus.tables import open_column, read_documents

_PAIRS = 8
_EXCERPT = 400
_LOOKED_AT = 100_000


class Fate(IntEnum):
    """Of a document that passed its filters; the reason by which it is counted."""

    train = 0
    off_domain = 1
    exact_duplicate = 2
    near_duplicate = 3
    heldout = 4


Fates = dict[int, npt.NDArray[np.uint8]]
"""Shard number -> [n] fates."""


@dataclass(frozen=True, slots=True)
class Edges:
    """[2, m] each: documents with the same text, and documents that share a band."""

    exact: Numbers
    near: Numbers


def decide_fates(shards: Sequence[tuple[Shard, Selected]], edges: Edges, cut: Mapping[int, tuple[Path, float]]) -> tuple[Fates, Numbers]:
    """(fates before anything is held out; [2, k]: each near-duplicate that goes, and the document that stays for it)."""
    fates = {shard.number: np.zeros(open_column(selected.families).size, dtype=np.uint8) for shard, selected in shards}
    for number, (scores, lowest) in cut.items():
        fates[number][below_cut(scores, lowest)] = Fate.off_domain
    nodes, firsts = components(np.concatenate([edges.near, edges.exact], axis=1))
    gone = nodes != firsts
    _mark(fates, nodes[gone], Fate.near_duplicate)
    same, first = components(edges.exact)
    _mark(fates, same[same != first], Fate.exact_duplicate)
    return fates, np.stack([nodes[gone], firsts[gone]])


def hold_out(corpus: CorpusConfig, shards: Sequence[tuple[Shard, Selected]], fates: Fates) -> Numbers:
    """Of one source: numbers of held-out documents in drawn order, marked in `fates`.

    Whole families move there in the order of their draws until `heldout_fraction` of the documents, or `heldout_max_documents`, is there; the last family
    never does. A draw depends on the family's name alone: new documents do not move old ones much.
    """
    numbers = np.concatenate([np.flatnonzero(fates[shard.number] == Fate.train).astype(np.uint64) + np.uint64(shard.number * MOST_ROWS) for shard, _ in shards])
    draws = np.concatenate([open_column(selected.families)[fates[shard.number] == Fate.train] for shard, selected in shards])
    wanted = min(max(1, round(corpus.heldout_fraction * len(numbers))), corpus.heldout_max_documents)
    families, members = np.unique(draws, return_counts=True)
    enough = int(np.searchsorted(np.cumsum(members), wanted)) + 1
    chosen = families[: max(0, min(enough, len(families) - 1))]
    held = draws <= chosen[-1] if len(chosen) else np.zeros(len(draws), dtype=bool)
    found: Numbers = numbers[held][np.lexsort((numbers[held], draws[held]))]
    _mark(fates, found, Fate.heldout)
    return found


def fetch_texts(shards: Sequence[tuple[Shard, Selected]], numbers: Numbers) -> list[Document]:
    """Documents by their numbers, in the order asked for. Reads the shards that have some."""
    by_number: dict[int, Document] = {}
    for shard, selected in shards:
        rows = {int(number) % MOST_ROWS for number in numbers if int(number) // MOST_ROWS == shard.number}
        if rows:
            by_number |= {shard.number * MOST_ROWS + row: document for row, document in _rows(selected.documents, rows)}
    return [by_number[int(number)] for number in numbers]


def sample_pairs(corpus: CorpusConfig, shards: Sequence[tuple[Shard, Selected]], fates: Fates, near: Numbers) -> list[Pair]:
    """Some near-duplicates that went, each beside one that it shares a band with, the same ones each time."""
    chosen = _some_edges(corpus, fates, near)
    texts = fetch_texts(shards, chosen.reshape(-1))
    names = [f"{source_of(shards, number)}/{document.id}" for number, document in zip(chosen.reshape(-1), texts, strict=True)]
    half = chosen.shape[1]
    return [
        Pair(
            draw=place, removed=names[half + place], kept=names[place], removed_text=texts[half + place].text[:_EXCERPT], kept_text=texts[place].text[:_EXCERPT]
        )
        for place in range(half)
    ]


def _some_edges(corpus: CorpusConfig, fates: Fates, near: Numbers) -> Numbers:
    """[2, at most `_PAIRS`] of the edges to a near-duplicate, by the draw of its number."""
    _, places = np.unique(near[1], return_index=True)
    by_draw = sorted(places[:_LOOKED_AT].tolist(), key=lambda place: draw(corpus.seed, "pair", str(near[1, place])))
    marked = (place for place in by_draw if fates[int(near[1, place]) // MOST_ROWS][int(near[1, place]) % MOST_ROWS] == Fate.near_duplicate)
    found: Numbers = near[:, list(islice(marked, _PAIRS))]
    return found


def cluster_sizes(gone: Numbers) -> dict[str, int]:
    """Documents of a cluster -> clusters of that size."""
    _, members = np.unique(gone[1], return_counts=True)
    return {str(size): number for size, number in sorted(Counter((members + 1).tolist()).items())}


def require_some(name: str, record: SelectRecord, fates: Mapping[str, int]) -> None:
    """Raises `UserError` when nothing of a source is left to train on or to hold out."""
    if fates.get("train") and fates.get("heldout"):
        return
    dropped = dict(record.dropped) | {fate: number for fate, number in fates.items() if fate not in ("train", "heldout")}
    left, why = fates.get("train", 0) + fates.get("heldout", 0), reasons(dropped)
    raise UserError(
        Problem(
            where=f"corpus.sources.{name}",
            what=f"has {left} of {record.documents} documents left" + f"; dropped {why}" * bool(why),
            why="a source needs a document to train on and an unrelated one to hold out",
            fix=f"corpus.sources.{name}.filters=none, other files, or remove the source",
        )
    )


def load_edges(files: Mapping[int, Sequence[Path]]) -> Edges:
    """Band -> files of its ranges; band 0 is the exact text."""
    exact = [np.asarray(open_column(file)) for file in files[0]]
    near = [np.asarray(open_column(file)) for band, ranges in files.items() if band for file in ranges]
    return Edges(np.concatenate(exact, axis=1), np.concatenate(near, axis=1))


def count_fates(fates: Sequence[npt.NDArray[np.uint8]]) -> dict[str, int]:
    """Of one source."""
    numbers = sum((np.bincount(each, minlength=len(Fate)) for each in fates), np.zeros(len(Fate), dtype=np.int64))
    return {fate.name: int(numbers[fate]) for fate in Fate if numbers[fate]}


def source_of(shards: Sequence[tuple[Shard, Selected]], number: Any) -> str:
    """The source of a document's number."""
    return next(shard.source for shard, _ in shards if shard.number == int(number) // MOST_ROWS)


def _mark(fates: Fates, numbers: Numbers, fate: Fate) -> None:
    """Sorted once: a corpus has thousands of shards and millions of duplicates."""
    ordered = np.sort(numbers)
    shards, starts = np.unique(ordered // np.uint64(MOST_ROWS), return_index=True)
    for shard, mine in zip(shards.tolist(), np.split(ordered, starts)[1:], strict=True):  # the first part is what comes before the first shard: nothing
        fates[int(shard)][(mine % np.uint64(MOST_ROWS)).astype(np.int64)] = fate


def _rows(path: Path, rows: set[int]) -> Iterator[tuple[int, Document]]:
    place = 0
    for batch in read_documents(path):
        yield from ((place + index, document) for index, document in enumerate(batch) if place + index in rows)
        place += len(batch)
