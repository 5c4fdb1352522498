"""One side of `cpt bench data` in a process of its own: `rivals.py ours|theirs filters|tokens FOLDER ARGUMENT` prints seconds of the processor and a hash."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_BATCH = 256
Parts = Callable[[], list[bytes]]
"""What came out, read when the clock has stopped."""
Begin = Callable[[], list[str]]
"""Starts the clock and gives the texts; called when everything is imported."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds of the processor, and a hash of what came out."""

    seconds: float
    result: str


def our_filters(begin: Begin, folder: Path, profile: str) -> Parts:
    """Judge and sign each document; signatures on disk."""
    from cpt.config.data import DedupConfig
    from cpt.config.filters import profiles
    from cpt.corpus.rules import Filter
    from cpt.corpus.signatures import Signatures
    from cpt.corpus.words import words_of

    words, signatures = words_of("en"), Signatures(DedupConfig())
    rules, kept, found = Filter(profiles()[profile], "en", words), list[bytes](), list[Any]()
    texts = begin()
    for start in range(0, len(texts), _BATCH):
        passed = [text for reason, text in map(rules.judge, texts[start : start + _BATCH]) if not reason]
        simplified = [words.simplified(text) for text in passed]
        found.append(signatures.of([each for each in simplified if len(each) >= 5]))
        kept += [text.encode() for text in passed]
    whole = np.concatenate(found)
    np.save(folder / "ours.npy", whole)
    return lambda: [*kept, *(_sorted_rows(whole[:, start : start + 8]).tobytes() for start in range(0, whole.shape[1], 8))]


def their_filters(begin: Begin, folder: Path, profile: str) -> Parts:
    """datatrove's steps, each fed by the one before, as its own pipeline runs them."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    from cpt.config.filters import profiles

    rules, kept = profiles()[profile], list[bytes]()
    quality = rules.quality
    steps: list[tuple[bool, Any]] = [
        (rules.repetition.enabled, GopherRepetitionFilter(language="en", top_n_grams=tuple(rules.repetition.max_top_ngram_characters.items()))),
        (
            quality.enabled,
            GopherQualityFilter(
                language="en", min_doc_words=quality.min_words, max_non_alpha_words_ratio=quality.min_alphabetic_words, min_stop_words=quality.min_stop_words
            ),
        ),
        (rules.c4.enabled, C4QualityFilter(language="en", filter_no_terminal_punct=False)),
        (rules.fineweb.enabled, FineWebQualityFilter(language="en")),
    ]
    documents: Iterator[Any] = (Document(text=text, id=str(number)) for number, text in enumerate(begin()))
    for enabled, step in steps:
        documents = step.run(documents) if enabled else documents

    def noted(stream: Iterator[Any]) -> Iterator[Any]:
        for document in stream:
            kept.append(document.text.encode())
            yield document

    MinhashDedupSignature(str(folder / "theirs"), MinhashConfig(), language="en").run(noted(documents))
    bands = sorted((folder / "theirs").glob("bucket_*/*.sig"))
    return lambda: [*kept, *(_sorted_rows(np.fromfile(band, dtype=[("rows", "<u8", 8), ("document", "<u4")])["rows"]).tobytes() for band in bands)]


def our_tokens(begin: Begin, folder: Path, tokenizer: str) -> Parts:
    """The suite's own writer."""
    from tokenizers import Tokenizer

    from cpt.corpus.tokens import DocumentTokenizer
    from cpt.data.indexed import IndexedWriter

    documents = DocumentTokenizer(Tokenizer.from_file(tokenizer), 0, "")
    with IndexedWriter(folder / "ours", documents.dtype) as writer:
        for ids in documents.encode(begin()):
            writer.add(ids)
    return lambda: [(folder / f"ours.{end}").read_bytes() for end in ("bin", "idx")]


def their_tokens(begin: Begin, folder: Path, tokenizer: str) -> Parts:
    """As Megatron-LM's preprocess_data.py goes about it: a document after the other, into megatron-core's builder."""
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
    from tokenizers import Tokenizer

    given = Tokenizer.from_file(tokenizer)
    given.encode_special_tokens = True
    builder = IndexedDatasetBuilder(str(folder / "theirs.bin"), dtype=DType.optimal_dtype(given.get_vocab_size()))
    for text in begin():
        ids = [*given.encode(text, add_special_tokens=False).ids, 0]
        builder.add_document(torch.tensor(ids), [len(ids)])
    builder.finalize(str(folder / "theirs.idx"))
    return lambda: [(folder / f"theirs.{end}").read_bytes() for end in ("bin", "idx")]


SIDES: dict[tuple[str, str], Callable[[Begin, Path, str], Parts]] = {
    ("ours", "filters"): our_filters,
    ("theirs", "filters"): their_filters,
    ("ours", "tokens"): our_tokens,
    ("theirs", "tokens"): their_tokens,
}


def _sorted_rows(rows: Any) -> Any:
    """datatrove's files are sorted."""
    return np.ascontiguousarray(rows[np.lexsort(rows.T[::-1])])


def main(side: str, kind: str, folder: str, argument: str) -> None:
    """Texts are read before the clock starts."""
    texts = [json.loads(line)["text"] for line in (Path(folder) / "texts.jsonl").read_text().splitlines()]
    begun = list[float]()

    def begin() -> list[str]:
        begun.append(time.process_time())
        return texts

    parts = SIDES[side, kind](begin, Path(folder), argument)
    seconds = time.process_time() - begun[0]
    sys.stdout.write(f"{seconds} {hashlib.sha256(chr(0).encode().join(parts())).hexdigest()[:16]}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
