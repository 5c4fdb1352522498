"""`cpt bench data`: filters, MinHash signatures and tokens of real documents against datatrove's steps and Megatron-LM's loop, per core, in alternating pairs.

Every measurement is a process of its own that has seen no document before, so that what is remembered of words is learned within it. Both sides
must keep the same documents, with the same text, signatures and token files: otherwise there is nothing to compare. Then: which planted
near-duplicates both find, what a second process brings, what a worker holds in memory, and what 1T tokens would take.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from cpt.bench.duplicates import Found, count, expected, plant, removed_by
from cpt.bench.figures import Figures, Say, whole_number
from cpt.bench.measuring import Work, measure, measure_together
from cpt.bench.rivals import STREAMED
from cpt.config.compose import compose_parts
from cpt.config.data import DedupConfig
from cpt.core.artifacts import write_text
from cpt.core.errors import CptError, Problem, UserError
from cpt.corpus.documents import Document
from cpt.corpus.formats import expand
from cpt.corpus.readers import read_file
from cpt.corpus.words import words_of
from cpt.data.indexed import IndexedTokens

OPTIONS = {
    "source": "",
    "profile": "web",
    "documents": "20000",
    "pairs": "3",
    "planted": "500",
    "tokenizer": "tests/assets/tokenizer.json",
    "folder": "runs/bench",
}
"""Whose files (the corpus's first source); a profile of filters; how many documents; measurements of each; pairs of near-duplicates for each likeness;
whose disk is written to."""

KINDS = {"filters": "filters and signatures", "tokens": "tokens", "duplicates": "near-duplicates", STREAMED: "a worker"}
_PARTS = {"small": 4, "first": 2, "second": 2, "whole": 1}
"""Name of a part of the documents -> one in how many. The first and the second do not overlap."""


@dataclass(kw_only=True)
class Measured:
    """Seconds of the processor, one entry a measurement."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median over pairs of theirs to ours."""
        return statistics.median(theirs / ours for theirs, ours in zip(self.theirs, self.ours, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """Documents a second of two processes at once over those of one, by the clock and by the seconds that they had of a processor: the two differ where
    others take processors, too. `memory`: documents -> the most bytes that a worker held."""

    clock: float
    processor: float
    memory: dict[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Of what is measured: documents, bytes of text, tokens."""

    documents: int
    bytes: int
    tokens: int


def run(options: Mapping[str, str], overrides: Sequence[str], say: Say) -> Figures:
    """Rows of ours and theirs; scaling, memory and the estimate below them."""
    Path(options["folder"]).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="data-", dir=options["folder"]) as name:
        folder = Path(name).absolute()
        documents = _documents(options, overrides)
        _write(folder, documents)
        pairs, arguments = whole_number(options, "pairs"), {"filters": options["profile"], "tokens": str(Path(options["tokenizer"]).absolute())}
        found = {kind: _compare(kind, folder, argument, pairs, say) for kind, argument in arguments.items()}
        size = Size(documents=len(documents), bytes=sum(document.bytes for document in documents), tokens=IndexedTokens([folder / "ours"]).tokens)
        planted = _find(folder / "planted", documents, whole_number(options, "planted"), say)
        scaling = _scale(folder / "parts", documents, options["profile"], pairs, say)
    return _figures(size, found, planted, scaling)


def _figures(size: Size, found: Mapping[str, Measured], planted: Mapping[str, Found], scaling: Scaling) -> Figures:
    ours, theirs = planted["ours"], planted["theirs"]
    rows: list[tuple[str, ...]] = [(f"{KINDS[kind]}, documents/s", *_speeds(size, one), f"{one.ratio:.1f}") for kind, one in found.items()]
    rows += [(f"near-duplicates found at {level}", f"{ours.recall[level]:.3f}", f"{theirs.recall[level]:.3f}", "") for level in ours.recall]
    rows += [("of what went, near-duplicates", f"{ours.precision:.3f}", f"{theirs.precision:.3f}", "")]
    data = {kind: {"ours": one.ours, "theirs": one.theirs, "ratio": one.ratio} for kind, one in found.items()}
    finds = {side: {"recall": {str(level): share for level, share in one.recall.items()}, "precision": one.precision} for side, one in planted.items()}
    return Figures(
        columns=("", "ours", "theirs", "ours / theirs"),
        rows=rows,
        data={
            **data,
            "documents": size.documents,
            "bytes": size.bytes,
            "tokens_read": size.tokens,
            "near_duplicates": finds,
            "two_processes": {"clock": scaling.clock, "processor": scaling.processor},
            "memory": {str(documents): memory for documents, memory in scaling.memory.items()},
            "core_hours_for_1t_tokens": _core_hours(size, found),
        },
        notes=_notes(size, found, scaling, list(ours.recall)),
    )


def _speeds(size: Size, found: Measured) -> tuple[str, str]:
    mine, their = (size.documents / statistics.median(each) for each in (found.ours, found.theirs))
    return f"{mine:,.0f}", f"{their:,.0f}"


def _notes(size: Size, found: Mapping[str, Measured], scaling: Scaling, levels: Sequence[float]) -> list[str]:
    config = DedupConfig()
    theory = ", ".join(f"{expected(level, config.bands, config.rows):.3f} at {level}" for level in levels)
    seconds = {kind: statistics.median(one.ours) / size.tokens * 1e6 for kind, one in found.items()}
    memory = ", ".join(f"{held / 1e6:,.0f} MB at {documents:,} documents" for documents, held in scaling.memory.items())
    return [
        f"{size.documents:,} documents, {size.bytes / 1e6:.1f} MB, of one core; the same documents, text, signatures and token files came out on both sides",
        f"likeness is Jaccard's, of 5-grams; in theory {theory} are found",
        f"two processes at once: {scaling.clock:.2f} times the documents/s of one by the clock, {scaling.processor:.2f} by their own seconds of a processor",
        f"most memory of a worker: {memory}; what it remembers of words is bounded, the rest does not grow",
        f"1T tokens of such text: {_core_hours(size, found):,.0f} core-hours, "
        + " + ".join(f"{each:.2f} s per million tokens for {KINDS[kind]}" for kind, each in seconds.items())
        + f"; a token is {size.bytes / size.tokens:.2f} bytes here",
    ]


def _core_hours(size: Size, found: Mapping[str, Measured]) -> float:
    """Of 1T tokens that are read, whatever of them stays."""
    return sum(statistics.median(one.ours) for one in found.values()) / size.tokens * 1e12 / 3600


def _documents(options: Mapping[str, str], overrides: Sequence[str]) -> list[Document]:
    """Of a source, as both sides read them."""
    corpus = compose_parts(overrides).corpus
    name = options["source"] or next(iter(corpus.sources))
    if name not in corpus.sources:
        raise UserError(Problem(where="source", what=f"is {name}", why="is no source of the corpus", fix=f"one of {', '.join(corpus.sources)}"))
    source = corpus.sources[name]
    made = (found for path in expand(source.paths or source.fallback) for found in read_file(path, source, corpus.max_document_bytes))
    return list(islice((document for document in made if isinstance(document, Document)), whole_number(options, "documents", 4)))


def _write(folder: Path, documents: Sequence[Document]) -> None:
    write_text(folder / "texts.jsonl", "".join(json.dumps({"id": document.id, "text": document.text}) + "\n" for document in documents))


def _compare(kind: str, folder: Path, argument: str, pairs: int, say: Say) -> Measured:
    found = Measured()
    for pair in range(pairs):
        both = {side: measure(Work(side, kind, folder, argument)) for side in (("ours", "theirs") if pair % 2 else ("theirs", "ours"))}
        if both["ours"].result != both["theirs"].result:
            raise CptError(f"{KINDS[kind]}: ours gave {both['ours'].result}, theirs {both['theirs'].result}: nothing to compare")
        found.ours.append(both["ours"].seconds)
        found.theirs.append(both["theirs"].seconds)
        say(f"{KINDS[kind]}, pair {pair + 1} of {pairs}: {both['ours'].seconds:.1f} s, theirs {both['theirs'].seconds:.1f} s")
    return found


def _find(folder: Path, documents: Sequence[Document], pairs: int, say: Say) -> dict[str, Found]:
    """Side -> what it finds of the near-duplicates planted in passages of these documents."""
    words = words_of("en")
    planted = plant([word for document in documents for word in words.simplified(document.text)], pairs, words.simplified)
    folder.mkdir()
    _write(folder, [Document(id=str(number), text=text, family=str(number)) for number, text in enumerate(planted.texts)])
    took = {side: measure(Work(side, "duplicates", folder, "")).seconds for side in ("theirs", "ours")}
    say(f"near-duplicates among {len(planted.texts):,} passages: {took['ours']:.1f} s, theirs {took['theirs']:.1f} s")
    return {side: count(planted, removed_by(side, folder)) for side in took}


def _scale(folder: Path, documents: Sequence[Document], profile: str, pairs: int, say: Say) -> Scaling:
    """One process and two at once, each with as many documents; then a worker's memory for few documents and for all."""
    work, sizes = dict[str, Work](), dict[str, int]()
    for name, share in _PARTS.items():
        size = len(documents) // share
        start = size if name == "second" else 0
        (folder / name).mkdir(parents=True)
        _write(folder / name, documents[start : start + size])
        work[name], sizes[name] = Work("ours", STREAMED, folder / name, profile), size
    clock, processor = list[float](), list[float]()
    for pair in range(pairs):
        apart, both = [measure(work[name]) for name in ("first", "second")], measure_together([work["first"], work["second"]])
        clock.append(sum(one.wall for one in apart) / max(one.wall for one in both))
        processor.append(sum(one.seconds for one in apart) / max(one.seconds for one in both))
        say(f"two processes, pair {pair + 1} of {pairs}: {clock[-1]:.2f} times the documents/s of one, {processor[-1]:.2f} by their seconds of a processor")
    memory = {sizes[name]: measure(work[name]).memory for name in ("small", "whole")}
    return Scaling(clock=statistics.median(clock), processor=statistics.median(processor), memory=memory)
