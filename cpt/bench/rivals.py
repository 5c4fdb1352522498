"""One side of `cpt bench data` in a process of its own: `rivals.py ours|theirs KIND FOLDER ARGUMENT` prints what it took and a hash of what came out, as JSON."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np

from cpt.bench.duplicates import load_their_words, our_duplicates, their_duplicates

_BATCH = 256
Parts = Callable[[], list[bytes]]
"""What came out, read when the clock has stopped."""
Begin = Callable[[], Iterable[str]]
"""Starts the clock and gives the texts; called when everything is imported."""
STREAMED = "worker"
"""The kind of work whose texts are read while the clock runs, a line at a time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds of the processor, a hash of what came out, seconds by the clock, and the most memory that the process ever had, in bytes."""

    seconds: float
    result: str
    wall: float = 0.0
    memory: int = 0


def our_filters(begin: Begin, folder: Path, profile: str) -> Parts:
    """Judge and sign each document; signatures on disk."""
    from cpt.config.data import DedupConfig
    from cpt.config.filters import profiles
    from cpt.corpus.rules import Filter
    from cpt.corpus.signatures import Signatures
    from cpt.corpus.words import words_of

    words, signatures = words_of("en"), Signatures(DedupConfig())
    rules, kept, found = Filter(profiles()[profile], "en", words), list[bytes](), list[Any]()
    for texts in batched(begin(), _BATCH):
        passed = [text for reason, text in map(rules.judge, texts) if not reason]
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

    load_their_words()
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


def our_worker(begin: Begin, folder: Path, profile: str) -> Parts:
    """Judge and sign a stream, keys of bands on disk: what a worker of a preparation holds, and nothing else."""
    from cpt.config.data import DedupConfig
    from cpt.config.filters import profiles
    from cpt.corpus.rules import Filter
    from cpt.corpus.signatures import Signatures
    from cpt.corpus.words import words_of

    words, signatures = words_of("en"), Signatures(DedupConfig())
    rules = Filter(profiles()[profile], "en", words)
    with (folder / "keys").open("wb") as file:
        for texts in batched(begin(), _BATCH):
            simplified = [words.simplified(text) for reason, text in map(rules.judge, texts) if not reason]
            signatures.bands(signatures.of([each for each in simplified if len(each) >= 5])).tofile(file)
    return list


def our_tokens(begin: Begin, folder: Path, tokenizer: str) -> Parts:
    """The suite's own writer."""
    from tokenizers import Tokenizer

    from cpt.corpus.tokens import DocumentTokenizer
    from cpt.data.indexed import IndexedWriter

    documents = DocumentTokenizer(Tokenizer.from_file(tokenizer), 0, "")
    with IndexedWriter(folder / "ours", documents.dtype) as writer:
        for ids in documents.encode(list(begin())):
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
    ("ours", "duplicates"): our_duplicates,
    ("theirs", "duplicates"): their_duplicates,
    ("ours", STREAMED): our_worker,
}


def _sorted_rows(rows: Any) -> Any:
    """datatrove's files are sorted."""
    return np.ascontiguousarray(rows[np.lexsort(rows.T[::-1])])


def _texts(folder: Path) -> Iterator[str]:
    with (folder / "texts.jsonl").open() as file:
        for line in file:
            yield json.loads(line)["text"]


def _most_memory() -> int:
    """Of this process alone; what `getrusage` says includes the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(side: str, kind: str, folder: str, argument: str) -> None:
    """Texts are read before the clock starts, unless they are streamed."""
    texts = _texts(Path(folder)) if kind == STREAMED else list(_texts(Path(folder)))
    begun = list[tuple[float, float]]()

    def begin() -> Iterable[str]:
        begun.append((time.process_time(), time.perf_counter()))
        return texts

    parts = SIDES[side, kind](begin, Path(folder), argument)
    seconds, wall = time.process_time() - begun[0][0], time.perf_counter() - begun[0][1]
    memory = _most_memory()
    result = hashlib.sha256(chr(0).encode().join(parts())).hexdigest()[:16]
    sys.stdout.write(f"{json.dumps(asdict(Outcome(seconds, result, wall, memory)))}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
