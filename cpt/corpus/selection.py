"""From sources to the documents that stay: read, sample, filter, deduplicate, split. Each rejection has a name and is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from cpt.config.data import BadInput, CorpusConfig
from cpt.core.errors import Problem, UserError
from cpt.corpus.debian import Mirror
from cpt.corpus.dedup import ExactDuplicates, NearDuplicates
from cpt.corpus.documents import Document, sample_bytes
from cpt.corpus.readers import Reading, read_source
from cpt.corpus.rules import Filter
from cpt.corpus.split import split_heldout
from cpt.corpus.words import Words, words_of

Observe = Callable[[str], None]
"""Called with one line per finished step."""

_DEDUP_BATCH = 1000
_SHOWN = 3
"""Bad records in an error."""


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
    exact, near = ExactDuplicates(), NearDuplicates(corpus.dedup)
    selections = {}
    for name, source in corpus.sources.items():
        reading = read_source(source, mirror, corpus.max_document_bytes)
        _require_readable(name, reading, corpus)
        sampled = sample_bytes(reading.documents, source.max_bytes, corpus.seed)
        if len(sampled) < len(reading.documents):
            reading = replace(reading, documents=sampled, origin=f"{reading.origin}; {len(sampled)} of {len(reading.documents)} documents drawn")
        words = words_of(source.language)
        passed, dropped = _filter(sampled, Filter(corpus.filters[source.filters], source.language, words), exact)
        kept = _differ(passed, words, near)
        for reason, number in (("near_duplicate", len(passed) - len(kept)), ("unreadable", len(reading.bad))):
            dropped |= {reason: number} if number else {}
        train, heldout = split_heldout(kept, corpus)
        if not train or not heldout:
            raise _empty(name, sampled, dropped)
        selections[name] = Selection(reading, sum(document.bytes for document in sampled), dropped, train, heldout)
        observe(f"{name}: read {len(sampled) + len(reading.bad)} documents, kept {len(kept)}{_reasons(dropped)}")
    return selections


def _filter(documents: list[Document], rules: Filter, exact: ExactDuplicates) -> tuple[list[Document], dict[str, int]]:
    """(kept, reason -> documents): rules, then exact duplicates."""
    dropped: Counter[str] = Counter()
    passed = []
    for document in documents:
        reason, text = rules.judge(document.text)
        if reason or not exact.is_new(text):
            dropped[reason or "exact_duplicate"] += 1
        else:
            passed.append(replace(document, text=text))
    return passed, dict(dropped)


def _differ(documents: list[Document], words: Words, near: NearDuplicates) -> list[Document]:
    """Those that are like none before."""
    kept = []
    for start in range(0, len(documents), _DEDUP_BATCH):
        batch = documents[start : start + _DEDUP_BATCH]
        kept += [document for document, new in zip(batch, near.are_new([words.simplified(document.text) for document in batch]), strict=True) if new]
    return kept


def _require_readable(name: str, reading: Reading, corpus: CorpusConfig) -> None:
    """Raises `UserError` with the first records that cannot be read, unless they may be put aside."""
    share = len(reading.bad) / max(1, len(reading.bad) + len(reading.documents))
    if not reading.bad or (corpus.bad_input is BadInput.quarantine and share <= corpus.max_bad_share):
        return
    why, fix = "a corpus is not made of half its input", "repair or remove them, or corpus.bad_input=quarantine"
    if corpus.bad_input is BadInput.quarantine:
        why = f"{len(reading.bad)} of the source's records cannot be read, {share:.2%}; corpus.max_bad_share is {corpus.max_bad_share:.2%}"
        fix = "repair them, or raise corpus.max_bad_share"
    more = f"; and {len(reading.bad) - _SHOWN} more in {name}" if len(reading.bad) > _SHOWN else ""
    raise UserError([Problem(where=bad.where, what=f"{bad.what}{more}", why=why, fix=fix) for bad in reading.bad[:_SHOWN]])


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
