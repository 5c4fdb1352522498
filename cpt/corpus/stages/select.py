"""`select`: a shard of files -> the documents that stay after what can be asked of each alone, and the keys by which duplicates are found."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import xxhash

from cpt.config.data import BadInput, CorpusConfig, FieldNames, Reader, SourceConfig
from cpt.core.artifacts import write_text
from cpt.core.errors import Problem, UserError
from cpt.corpus.documents import Document, draw, drawn
from cpt.corpus.formats import Bad
from cpt.corpus.inputs import MOST_ROWS, Shard, require_unchanged
from cpt.corpus.readers import read_piece
from cpt.corpus.screen import Screen
from cpt.corpus.signatures import Keys, Signatures
from cpt.corpus.stages.records import Example, SelectRecord, describe
from cpt.corpus.tables import DocumentWriter, save_column

_BATCH = 256
SHOWN = 5
"""Examples of a reason, in each shard and in all."""
_EXCERPT = 1000
NAMED = 3
"""Records in an error."""


@dataclass(frozen=True, slots=True)
class Selected:
    """Where one shard's files are."""

    folder: Path
    stem: str

    def _file(self, end: str) -> Path:
        return self.folder / f"{self.stem}.{end}"

    @property
    def record(self) -> Path:
        """`SelectRecord`."""
        return self._file("json")

    @property
    def documents(self) -> Path:
        """The documents that stay; row i is document number `shard.number * 2^32 + i`."""
        return self._file("parquet")

    @property
    def keys(self) -> Path:
        """[1 + bands, n] uint64: key of the exact text, then one for each band, each row ascending; 0 is no key."""
        return self._file("keys.npy")

    @property
    def order(self) -> Path:
        """[1 + bands, n] uint32: the document that each key is of."""
        return self._file("order.npy")

    @property
    def families(self) -> Path:
        """[n] uint64: what the family of each document drew."""
        return self._file("families.npy")

    @property
    def bad(self) -> Path:
        """JSONL of records that cannot be read; there when some cannot."""
        return self._file("bad.jsonl")


@dataclass
class Tally:
    """Counts while a shard is read."""

    documents: int = 0
    bytes: int = 0
    kept_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    scrubbed: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    bad: list[Bad] = field(default_factory=list)

    def show(self, reason: str, document: Document, seed: int) -> None:
        """Keep it when its draw is among the smallest."""
        found, number = self.examples.setdefault(reason, []), draw(seed, "example", document.id)
        if len(found) < SHOWN or number < found[-1].draw:
            found.append(Example(draw=number, id=document.id, text=document.text[:_EXCERPT]))
            found.sort(key=lambda example: example.draw)
            del found[SHOWN:]


def select(corpus: CorpusConfig, shard: Shard, out: Selected) -> None:
    """Raises `UserError` for a file that has changed since it was planned, and with the first records that cannot be read where bad input stops."""
    begun, tally = time.process_time(), Tally()
    screen, signatures = Screen(corpus, corpus.sources[shard.source]), Signatures(corpus.dedup)
    keys, families = list[Keys](), list[int]()
    out.record.unlink(missing_ok=True)  # its files are about to change
    with DocumentWriter(out.documents) as table:
        for batch in _batches(_kept(corpus, shard, screen, tally)):
            for document, size in batch:
                table.add(document, size)
                families.append(draw(corpus.seed, "heldout", document.family or document.id))
            keys.append(_keys([document.text for document, _ in batch], screen, signatures, corpus.dedup.ngram))
    if len(families) >= MOST_ROWS:
        raise UserError(Problem(where="corpus.shard_bytes", what=f"gives a shard {len(families)} documents", why="has room for 2^32", fix="less"))
    _write(keys, families, out, 1 + corpus.dedup.bands)
    if tally.bad:
        write_text(out.bad, "".join(f"{json.dumps(asdict(bad))}\n" for bad in tally.bad))
    files = [out.documents, out.keys, out.order, out.families, *([out.bad] if tally.bad else [])]
    SelectRecord(
        files=describe(files),
        seconds=time.process_time() - begun,
        documents=tally.documents,
        bytes=tally.bytes,
        unreadable=len(tally.bad),
        kept=len(families),
        kept_bytes=tally.kept_bytes,
        dropped=dict(tally.dropped),
        dropped_bytes=dict(tally.dropped_bytes),
        scrubbed=dict(tally.scrubbed),
        lengths=dict(tally.lengths),
        examples=tally.examples,
    ).save(out.record)


def require_readable(source: str, bad: list[Bad], number: int, documents: int, corpus: CorpusConfig) -> None:
    """`bad`: the first of `number` records that cannot be read beside `documents` that can. Raises `UserError` unless they may be put aside."""
    share = number / max(1, number + documents)
    if not number or (corpus.bad_input is BadInput.quarantine and share <= corpus.max_bad_share):
        return
    why, fix = "a corpus is not made of half its input", "repair or remove them, or corpus.bad_input=quarantine"
    if corpus.bad_input is BadInput.quarantine:
        why = f"{number} of the source's records cannot be read, {share:.2%}; corpus.max_bad_share is {corpus.max_bad_share:.2%}"
        fix = "repair them, or raise corpus.max_bad_share"
    more = f"; and {number - len(bad)} more in {source}" if number > len(bad) else ""
    raise UserError([Problem(where=one.where, what=f"{one.what}{more}", why=why, fix=fix) for one in bad])


def _kept(corpus: CorpusConfig, shard: Shard, screen: Screen, tally: Tally) -> Iterator[tuple[Document, int]]:
    """(document that stays, bytes of its text), each counted."""
    for document in _read(corpus, shard, tally):
        size = document.bytes
        tally.documents += 1
        tally.bytes += size
        verdict = screen.look(document.text)
        kept = replace(document, text=verdict.text)
        tally.show(verdict.reason or "kept", kept, corpus.seed)
        if verdict.reason:
            tally.dropped[verdict.reason] += 1
            tally.dropped_bytes[verdict.reason] += size
            continue
        size = kept.bytes
        tally.scrubbed.update(verdict.scrubbed)
        tally.lengths[str(size.bit_length() - 1)] += 1
        tally.kept_bytes += size
        yield kept, size


def _read(corpus: CorpusConfig, shard: Shard, tally: Tally) -> Iterator[Document]:
    """Documents that can be read and were drawn."""
    source = as_files(corpus.sources[shard.source])
    for piece in shard.pieces:
        require_unchanged(piece)
        for found in read_piece(piece, source, corpus.max_document_bytes):
            if isinstance(found, Bad):
                tally.bad.append(found)
                if corpus.bad_input is BadInput.stop and len(tally.bad) == NAMED:
                    require_readable(shard.source, tally.bad, NAMED, tally.documents, corpus)
            elif drawn(corpus.seed, found.id, source.share):
                yield found
    if corpus.bad_input is BadInput.stop:
        require_readable(shard.source, tally.bad, len(tally.bad), tally.documents, corpus)


def as_files(source: SourceConfig) -> SourceConfig:
    """How its shards are read: what was fetched is drawn already, and has fields of its own."""
    return source if source.reader is Reader.files else replace(source, template="", fields=FieldNames(), share=1.0)


def _batches(documents: Iterator[tuple[Document, int]]) -> Iterator[list[tuple[Document, int]]]:
    batch: list[tuple[Document, int]] = []
    for document in documents:
        batch.append(document)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _keys(texts: list[str], screen: Screen, signatures: Signatures, ngram: int) -> Keys:
    """[n, 1 + bands]. A text without an n-gram has no key in any band."""
    words = [screen.words.simplified(text) for text in texts]
    long = np.array([len(each) >= ngram for each in words], dtype=bool)
    bands = signatures.bands(signatures.of([each for each in words if len(each) >= ngram]))
    found = np.zeros((len(texts), 1 + bands.shape[1]), dtype=np.uint64)
    found[:, 0] = [exact_key(text) for text in texts]
    found[long, 1:] = bands
    return found


def exact_key(text: str) -> int:
    """Equal for texts that are up to case and white space. Among a billion others, one finds a wrong twin with probability 3e-2 in all."""
    return int(xxhash.xxh3_64_intdigest(" ".join(text.lower().split())))


def _write(keys: list[Keys], families: list[int], out: Selected, rows: int) -> None:
    """Sorted by key, so that whoever looks at a range of keys reads that range alone."""
    table = np.concatenate(keys).T if keys else np.empty((rows, 0), dtype=np.uint64)
    order = np.argsort(table, axis=1, kind="stable")
    save_column(out.keys, np.take_along_axis(table, order, axis=1))
    save_column(out.order, order.astype(np.uint32))
    save_column(out.families, np.array(families, dtype=np.uint64))
