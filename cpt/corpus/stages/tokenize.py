"""`tokenize`: documents that stay -> one pair of Megatron's token files, without those that hold what the model is measured on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cpt.core.artifacts import sha256_file, write_text
from cpt.core.manifest import ShardRecord
from cpt.corpus.documents import Document, draw
from cpt.corpus.overlap import Detector, Hit
from cpt.corpus.stages.records import Contaminated, TokenRecord, describe
from cpt.corpus.tables import read_documents
from cpt.corpus.tokens import DocumentTokenizer
from cpt.data.indexed import IndexedWriter, bin_path, ids_path, idx_path

_SHOWN = 5
_EXCERPT = 400


@dataclass
class Found:
    """Contamination of one shard."""

    seed: int
    documents: dict[str, int] = field(default_factory=dict)
    items: dict[str, set[str]] = field(default_factory=dict)
    examples: list[Contaminated] = field(default_factory=list)

    def add(self, document: Document, hit: Hit) -> None:
        """Count it, and show it when its draw is among the smallest."""
        self.documents[hit.set] = self.documents.get(hit.set, 0) + 1
        self.items.setdefault(hit.set, set()).add(hit.item)
        number, text = draw(self.seed, "example", document.id), document.text[:_EXCERPT]
        self.examples.append(Contaminated(draw=number, id=document.id, set=hit.set, item=hit.item, share=hit.share, text=text))
        self.examples.sort(key=lambda example: example.draw)
        del self.examples[_SHOWN:]


def staying(documents: Path, fates: npt.NDArray[np.uint8], detector: Detector | None, found: Found) -> Iterator[list[Document]]:
    """Batches of what is trained on."""
    place = 0
    for batch in read_documents(documents, ("id", "text")):
        chosen = [document for document, fate in zip(batch, fates[place : place + len(batch)], strict=True) if fate == 0]
        place += len(batch)
        hits = detector.find([document.text for document in chosen]) if detector else [None] * len(chosen)
        for document, hit in zip(chosen, hits, strict=True):
            if hit:
                found.add(document, hit)
        yield [document for document, hit in zip(chosen, hits, strict=True) if not hit]


def write_tokens(batches: Iterator[Sequence[Document]], prefix: Path, root: Path, tokenizer: DocumentTokenizer, found: Found) -> None:
    """`<prefix>.bin`, `.idx`, `.ids` and, last, the record `<prefix>.json`; `root` is the manifest's folder."""
    begun, record, ids = time.process_time(), prefix.with_name(f"{prefix.name}.json"), list[str]()
    tokens = size = 0
    record.unlink(missing_ok=True)
    with IndexedWriter(prefix, tokenizer.dtype) as writer:
        for batch in batches:
            for document, encoded in zip(batch, tokenizer.encode([document.text for document in batch]), strict=True):
                writer.add(encoded)
                tokens, size = tokens + len(encoded), size + document.bytes
                ids.append(json.dumps(document.id))
    write_text(ids_path(prefix), "".join(f"{id}\n" for id in ids))
    shard = ShardRecord(prefix=str(prefix.relative_to(root)), documents=len(ids), bytes=size, tokens=tokens, sha256=sha256_file(bin_path(prefix)))
    TokenRecord(
        files=describe([bin_path(prefix), idx_path(prefix), ids_path(prefix)]),
        seconds=time.process_time() - begun,
        shard=shard,
        contaminated=dict(sorted(found.documents.items())),
        items={name: sorted(items) for name, items in sorted(found.items.items())},
        examples=found.examples,
    ).save(record)
