"""Training documents that hold what a model is measured on: those with at least `min_share` of an item's distinct word n-grams (Tulu 3: half of
its 8-grams; Lambert et al. 2024, arXiv 2411.15124, section 3.2).

Words are runs of letters, marks and digits after NFKC and case folding; where a script has no spaces (Chinese, Thai, ...), each character is
one. An n-gram is known by a 64-bit hash, otherwise nothing is estimated. A look at a document ends early for most: an item of which m n-grams must
be there is met only by a document that has one of its G - m + 1 rarest, so that a phrase that all items share costs nothing.
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
import numpy.typing as npt
import regex  # type: ignore[import-untyped]
import xxhash

from cpt.core.artifacts import write_bytes
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.corpus.formats import Bad, Record, read_records
from cpt.corpus.serialize import look_up, write
from cpt.corpus.words import Memory

Keys = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

_ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Line_Break=SA}"
"""Scripts without spaces; SA: those of South East Asia."""
_WORD = regex.compile(rf"(?V1)[{_ALONE}]\p{{M}}*|[\w--[{_ALONE}_]]+")
_ASCII_WORD = re.compile(r"[^\W_]+", re.ASCII)
_UNSEEN = regex.compile(r"\p{Cf}+")
"""Soft hyphens, joiners, marks of direction: a copy that has them looks the same."""
_LONG = 64
"""Characters of a chunk that is not remembered: it hardly comes again, and whole paragraphs of Chinese are chunks."""
_BATCH = 1 << 16
"""Words looked at together: their arrays stay in the processor's cache."""
_ASKED = 1 << 22
"""n-grams of items asked for at a time: many items that are nearly alike would fill the memory."""


class WordHashes:
    """Texts as the hashes of their words."""

    def __init__(self) -> None:
        self._words = _Brief(xxhash.xxh3_64_digest)
        self._chunks = _Brief(self._learn)

    def of(self, text: str) -> bytes:
        """8 bytes for each word. Neither NFKC nor case folding looks beyond white space, so chunks are hashed on their own and remembered."""
        return b"".join(map(self._chunks.__getitem__, text.split()))

    def _learn(self, chunk: str) -> bytes:
        return b"".join(map(self._words.__getitem__, split_words(chunk)))


def split_words(text: str) -> list[str]:
    """Words as they are compared."""
    if text.isascii():  # says the same, faster
        return _ASCII_WORD.findall(text.lower())
    words: list[str] = _WORD.findall(_UNSEEN.sub("", unicodedata.normalize("NFKC", text)).casefold())
    return words


class _Brief(Memory[bytes]):
    """Its memory is bounded in bytes, too."""

    def __missing__(self, key: str) -> bytes:
        return self._learn(key) if len(key) > _LONG else super().__missing__(key)


def hash_grams(words: Keys, ngram: int) -> Keys:
    """[n - ngram + 1] hashes of all n-grams of [n] word hashes: of two that overlap or touch, a longer one is made, in log2(ngram) steps."""
    found, length = words, 1
    while length < ngram:  # of fewer words than that nothing is left
        step = min(length, ngram - length)
        first = found[:-step] * np.uint64(0x9E3779B97F4A7C15)
        first ^= first >> np.uint64(32)
        first *= np.uint64(0xBF58476D1CE4E5B9)
        first += found[step:]
        found, length = first, length + step
    return found


@dataclass(slots=True)
class Counted:
    """Of one set."""

    items: int = 0
    short: int = 0
    """Of these, how many have fewer words than an n-gram and cannot be looked for."""
    common: int = 0
    """How many are nothing but what other items say, too."""


class References:
    """The n-grams of all items that are looked for; as large as they are."""

    def __init__(self, ngram: int) -> None:
        self.ngram = ngram
        self.sets: dict[str, Counted] = {}
        self.items: list[tuple[str, str]] = []
        """(set, id) of the items that are long enough, in the order in which they came."""
        self._grams: list[Keys] = []
        self._hashes = WordHashes()

    def add(self, name: str, item_id: str, text: str) -> None:
        """One item of the set `name`."""
        counted = self.sets.setdefault(name, Counted())
        counted.items += 1
        words = np.frombuffer(self._hashes.of(text), dtype="<u8")
        if len(words) < self.ngram:
            counted.short += 1
            return
        self.items.append((name, item_id))
        self._grams.append(np.unique(hash_grams(words, self.ngram)))

    def without_common(self, most: int) -> References:
        """Without n-grams that more than `most` items of one set have: a license, the wording of a form. Who holds that does not hold the item."""
        grams, sizes = self.arrays()
        owners = np.repeat(np.arange(len(sizes)), sizes)
        names = {name: number for number, name in enumerate(self.sets)}
        of_set = np.array([names[name] for name, _ in self.items], dtype=np.int64)[owners]
        by_set = [np.unique(grams[of_set == number], return_counts=True) for number in names.values()]
        rare = ~np.isin(grams, np.concatenate([np.empty(0, dtype=np.uint64), *(each[counts > most] for each, counts in by_set)]))
        left = np.bincount(owners[rare], minlength=len(sizes))
        found = References(self.ngram)
        found.sets = {name: replace(counted) for name, counted in self.sets.items()}
        for item, number, kept in zip(self.items, left, np.split(grams[rare], np.cumsum(left)[:-1]) if len(left) else [], strict=True):
            if number:
                found.items.append(item)
                found._grams.append(kept)
            else:
                found.sets[item[0]].common += 1
        return found

    def arrays(self) -> tuple[Keys, Indices]:
        """(distinct n-grams of one item after the other, how many each has)."""
        sizes = np.array([len(grams) for grams in self._grams], dtype=np.int64)
        return np.concatenate([np.empty(0, dtype=np.uint64), *self._grams]), sizes

    def save(self, path: Path) -> None:
        """As .npz without pickle; the same items give the same bytes."""
        about = {"ngram": self.ngram, "sets": {name: asdict(counted) for name, counted in self.sets.items()}, "items": self.items}
        grams, sizes = self.arrays()
        arrays = {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), "grams": grams.astype("<u8"), "sizes": sizes.astype("<i8")}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in arrays.items():
                # An entry made by hand is of 1980; numpy's own may be of today.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises `MissingInput`, or `UserError` when the file is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                about, grams, sizes = json.loads(file["about"].tobytes()), file["grams"], file["sizes"]
        except FileNotFoundError:
            raise MissingInput(path=path, why="holds what training text must not", fix="prepare the corpus again") from None
        except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError) as error:
            raise UserError(Problem(where=str(path), what=f"cannot be read: {error}", why="it is damaged", fix="prepare the corpus again")) from None
        found = cls(about["ngram"])
        found.sets = {name: Counted(**counted) for name, counted in about["sets"].items()}
        found.items = [(name, item_id) for name, item_id in about["items"]]
        found._grams = np.split(grams, np.cumsum(sizes)[:-1]) if len(sizes) else []
        return found


@dataclass(frozen=True, slots=True)
class Hit:
    """The item of which a document holds most."""

    set: str
    item: str
    share: float
    """Of the item's distinct n-grams."""


class _Lists:
    """Lists of numbers, one after the other."""

    def __init__(self, values: Indices, sizes: Indices) -> None:
        self._values, self.sizes, self._starts = values, sizes, np.cumsum(sizes) - sizes

    def of(self, chosen: Indices) -> Indices:
        """The lists of these indices, joined."""
        sizes = self.sizes[chosen]
        joined: Indices = self._values[np.arange(sizes.sum()) + np.repeat(self._starts[chosen] - (np.cumsum(sizes) - sizes), sizes)]
        return joined


class Detector:
    """Finds documents that hold at least `min_share` of an item of `references`."""

    def __init__(self, references: References, min_share: float) -> None:
        grams, sizes = references.arrays()
        self._ngram, self._items, self._sizes, self._min_share = references.ngram, references.items, sizes, min_share
        self._grams, index = np.unique(grams, return_inverse=True)
        self._of_item = _Lists(index, sizes)
        self._needed = _least(sizes, min_share)
        self._by_trigger = _triggers(index, sizes, self._needed, len(self._grams))
        bits = max(16, (16 * len(self._grams)).bit_length())
        self._mask = np.uint64((1 << bits) - 1)
        self._may = np.zeros(1 << bits, dtype=np.bool_)  # most n-grams of a document are no item's: one look tells
        self._may[self._grams & self._mask] = True
        self._hashes = WordHashes()

    def find(self, texts: Sequence[str]) -> list[Hit | None]:
        """For each text the item of which it holds the largest share, of equals the one added first; None below `min_share`."""
        found, batch, size = list[Hit | None](), list[bytes](), 0
        for text in texts:
            batch.append(self._hashes.of(text))
            size += len(batch[-1]) // 8
            if size >= _BATCH:
                found += self._find(batch)
                batch, size = [], 0
        return found + self._find(batch)

    def _find(self, batch: Sequence[bytes]) -> list[Hit | None]:
        found: list[Hit | None] = [None] * len(batch)
        documents, grams = self._known(batch)
        if len(grams):
            for document, item, share in self._worst(*self._shares(documents, grams)):
                found[document] = Hit(*self._items[item], share)
        return found

    def _known(self, batch: Sequence[bytes]) -> tuple[Indices, Indices]:
        """Pairs of a document and an n-gram of some item that it holds: sorted, each once."""
        hashes = hash_grams(np.frombuffer(b"".join(batch), dtype="<u8"), self._ngram)
        places = np.flatnonzero(self._may[hashes & self._mask])
        ends = np.cumsum([len(one) // 8 for one in batch])
        documents = np.searchsorted(ends, places, side="right")
        grams = np.minimum(np.searchsorted(self._grams, hashes[places]), len(self._grams) - 1)
        real = (self._grams[grams] == hashes[places]) & (places + self._ngram <= ends[documents])  # the others begin in one document and end in the next
        return _pairs(documents[real] * len(self._grams) + grams[real], len(self._grams))

    def _shares(self, documents: Indices, grams: Indices) -> tuple[Indices, Indices, npt.NDArray[np.float64]]:
        """Documents, items and the share of the item in the document, for all pairs that can reach `min_share`."""
        triggered = np.repeat(documents, self._by_trigger.sizes[grams]) * len(self._items) + self._by_trigger.of(grams)
        met, items = _pairs(triggered, len(self._items))
        enough = np.bincount(documents)[met] >= self._needed[items]  # no item of which more is needed than the document knows of all
        met, items = met[enough], items[enough]
        held = documents * len(self._grams) + grams
        parts = np.flatnonzero(np.diff(np.cumsum(self._sizes[items]) // _ASKED)) + 1
        counts = [self._count(held, *pair) for pair in zip(np.split(met, parts), np.split(items, parts), strict=True)]
        return met, items, np.concatenate(counts) / self._sizes[items]

    def _count(self, held: Indices, documents: Indices, items: Indices) -> npt.NDArray[np.float64]:
        """How many n-grams of each item its document holds."""
        sizes = self._sizes[items]
        asked = np.repeat(documents, sizes) * len(self._grams) + self._of_item.of(items)
        is_held = held[np.minimum(np.searchsorted(held, asked), len(held) - 1)] == asked
        return np.bincount(np.repeat(np.arange(len(items)), sizes), is_held)

    def _worst(self, documents: Indices, items: Indices, shares: npt.NDArray[np.float64]) -> Iterator[tuple[int, int, float]]:
        """(document, item, share) of each document that holds too much of some item."""
        over = shares >= self._min_share
        documents, items, shares = documents[over], items[over], shares[over]
        order = np.lexsort((items, -shares, documents))
        _, first = np.unique(documents[order], return_index=True)
        chosen = order[first]
        return zip(documents[chosen].tolist(), items[chosen].tolist(), shares[chosen].tolist(), strict=True)


def _pairs(keys: Indices, size: int) -> tuple[Indices, Indices]:
    """Keys of first * size + second -> (first, second), sorted, each once; three times as fast as np.unique."""
    keys = np.sort(keys)
    first, second = np.divmod(keys[np.diff(keys, prepend=-1) > 0], size)
    return first, second


def _least(sizes: Indices, min_share: float) -> Indices:
    """The least count that is a share of at least `min_share`; one less would do no harm, one more would miss items. 0.1 * 30 is more than 3."""
    counts = np.ceil(sizes * min_share)
    counts -= (counts - 1) / sizes >= min_share
    return counts.astype(np.int64)


def _triggers(index: Indices, sizes: Indices, needed: Indices, grams: int) -> _Lists:
    """n-gram -> items that have it among those of which a document must hold one: as many of the item's rarest as it can not lack all of."""
    owners = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((index, np.bincount(index, minlength=grams)[index], owners))
    rank = np.arange(len(index)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[rank <= np.repeat(sizes - needed, sizes)]
    by_gram = chosen[np.argsort(index[chosen], kind="stable")]
    return _Lists(owners[by_gram], np.bincount(index[chosen], minlength=grams))


def read_items(path: str, fields: Sequence[str], max_bytes: int = 64_000_000) -> Iterator[tuple[str, str]]:
    """(id, text) of each record of a benchmark's file; the text is the first of `fields` that is not empty. Raises `UserError` for what cannot be read."""
    for record in _records(path, max_bytes):
        name, text = next(((name, value) for name in fields if write(value := look_up(record.fields, name))), ("", None))
        if not isinstance(text, str):
            what, fix = f"{name} is no text" if name else f"has none of {', '.join(fields)}", "corpus.decontaminate.fields=[<field of the question>]"
            has = ", ".join(f"{name} ({type(value).__name__})" for name, value in record.fields.items()) or "no field"
            raise UserError(Problem(where=record.where, what=what, why=f"it has {has}", fix=fix))
        yield write(look_up(record.fields, "id")) or record.where, text


def read_questions(path: Path) -> Iterator[tuple[str, str]]:
    """(`file:line`, question) of a set that `benchmarks` has built, without the wording above the blank line, which all questions of a set share."""
    for item_id, text in read_items(str(path), ["question"]):
        yield PurePosixPath(item_id).name, text.partition("\n\n")[2] or text


def _records(path: str, max_bytes: int) -> Iterator[Record]:
    for found in read_records(path, [], max_bytes):
        if isinstance(found, Bad):
            raise UserError(Problem(where=found.where, what=found.what, why="each item of a benchmark is looked for", fix="repair or replace the file"))
        yield found
