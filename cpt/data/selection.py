"""From sources to the documents that stay: read, sample, filter, deduplicate, split. Each rejection has a name and is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from cpt.config.data import CorpusConfig, SourceConfig
from cpt.core.errors import Problem, UserError
from cpt.data.debian import Mirror
from cpt.data.dedup import ExactDuplicates, NearDuplicates
from cpt.data.documents import Document, sample_bytes
from cpt.data.filters import reject
from cpt.data.readers import Reading, read_source
from cpt.data.split import split_heldout

Observe = Callable[[str], None]
"""Called with one line per finished step."""

_DEDUP_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """One source after filters, dedup and split."""

    reading: Reading
    bytes_read: int
    dropped: dict[str, int]
    train: list[Document]
    heldout: list[Document]


def select_documents(corpus: CorpusConfig, mirror: Mirror, observe: Observe) -> dict[str, Selection]:
    """All sources through one memory of duplicates, so a text stays only in the first source that has it."""
    exact, near = ExactDuplicates(), NearDuplicates(corpus.dedup, corpus.seed)
    selections = {}
    for name, source in corpus.sources.items():
        reading = read_source(source, mirror)
        sampled = sample_bytes(reading.documents, source.max_bytes, corpus.seed)
        if len(sampled) < len(reading.documents):
            reading = Reading(sampled, f"{reading.origin}; {len(sampled)} of {len(reading.documents)} documents drawn")
        kept, dropped = _keep(sampled, source, exact, near)
        train, heldout = split_heldout(kept, corpus)
        if not train or not heldout:
            raise _empty(name, sampled, dropped)
        selections[name] = Selection(reading, sum(document.bytes for document in sampled), dropped, train, heldout)
        observe(f"{name}: read {len(sampled)} documents, kept {len(kept)}{_reasons(dropped)}")
    return selections


def _keep(documents: list[Document], source: SourceConfig, exact: ExactDuplicates, near: NearDuplicates) -> tuple[list[Document], dict[str, int]]:
    """Filter, then exact, then near duplicates: (kept, reason -> documents)."""
    dropped: Counter[str] = Counter()
    passed = []
    for document in documents:
        reason = reject(source.filters, document.text, source.language) or (None if exact.is_new(document.text) else "exact_duplicate")
        if reason:
            dropped[reason] += 1
        else:
            passed.append(document)
    kept = []
    for start in range(0, len(passed), _DEDUP_BATCH):
        batch = passed[start : start + _DEDUP_BATCH]
        kept += [document for document, new in zip(batch, near.are_new([document.text for document in batch]), strict=True) if new]
    if len(kept) < len(passed):
        dropped["near_duplicate"] = len(passed) - len(kept)
    return kept, dict(dropped)


def _empty(name: str, read: list[Document], dropped: dict[str, int]) -> UserError:
    return UserError(
        Problem(
            where=f"corpus.sources.{name}",
            what=f"has {len(read) - sum(dropped.values())} of {len(read)} documents left{_reasons(dropped)}",
            why="a source needs a document to train on and an unrelated one to hold out",
            fix=f"corpus.sources.{name}.filters=none, other files, or remove the source",
        )
    )


def _reasons(dropped: dict[str, int]) -> str:
    return "; dropped " + ", ".join(f"{number} {reason}" for reason, number in sorted(dropped.items())) if dropped else ""
