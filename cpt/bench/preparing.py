"""`cpt bench data`: filters, MinHash signatures and tokens of real documents against datatrove's steps and Megatron-LM's loop, per core, in alternating pairs.

Every measurement is a process of its own that has seen no document before, so that what is remembered of words is learned within it. Both sides
must keep the same documents, with the same text, signatures and token files: otherwise there is nothing to compare.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from cpt.bench.figures import Figures, Say, whole_number
from cpt.bench.rivals import Outcome
from cpt.config.compose import compose_parts
from cpt.core.artifacts import write_text
from cpt.core.errors import CptError, Problem, UserError
from cpt.corpus.documents import Document
from cpt.corpus.formats import Record, expand, needed_fields, read_records
from cpt.corpus.serialize import Serializer

OPTIONS = {"source": "", "profile": "web", "documents": "20000", "pairs": "3", "tokenizer": "tests/assets/tokenizer.json", "folder": "runs/bench"}
"""Whose files (the corpus's first source); a profile of filters; how many documents; measurements of each; whose disk is written to."""

KINDS = {"filters": "filters and signatures", "tokens": "tokens"}


@dataclass(kw_only=True)
class Measured:
    """Seconds of the processor, one entry a measurement, and what came out."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    memory: int = 0

    @property
    def ratio(self) -> float:
        """Median over pairs of theirs to ours."""
        return statistics.median(theirs / ours for theirs, ours in zip(self.theirs, self.ours, strict=True))


def run(options: Mapping[str, str], overrides: Sequence[str], say: Say) -> Figures:
    """A row for each kind of work."""
    Path(options["folder"]).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="data-", dir=options["folder"]) as name:
        folder = Path(name).absolute()
        texts, size = _write_texts(options, overrides, folder / "texts.jsonl")
        arguments = {"filters": options["profile"], "tokens": str(Path(options["tokenizer"]).absolute())}
        found = {kind: _compare(kind, folder, argument, whole_number(options, "pairs"), say) for kind, argument in arguments.items()}
    rows = [
        (
            KINDS[kind],
            f"{one.ratio:.1f}",
            *(f"{texts / statistics.median(each):,.0f}" for each in (one.ours, one.theirs)),
            f"{size / statistics.median(one.ours) / 1e6:.1f}",
        )
        for kind, one in found.items()
    ]
    return Figures(
        columns=("", "ours / theirs", "documents/s", "theirs", "MB/s"),
        rows=rows,
        data={kind: {"ours": one.ours, "theirs": one.theirs, "ratio": one.ratio} for kind, one in found.items()} | {"documents": texts, "bytes": size},
        notes=[f"{texts:,} documents, {size / 1e6:.1f} MB, of one core; the same documents, text, signatures and token files came out on both sides"],
    )


def _write_texts(options: Mapping[str, str], overrides: Sequence[str], path: Path) -> tuple[int, int]:
    """The documents of a source, as both sides read them: (how many, bytes of text)."""
    corpus = compose_parts(overrides).corpus
    name = options["source"] or next(iter(corpus.sources))
    if name not in corpus.sources:
        raise UserError(Problem(where="source", what=f"is {name}", why="is no source of the corpus", fix=f"one of {', '.join(corpus.sources)}"))
    source, serializer = corpus.sources[name], Serializer(corpus.sources[name])
    records = (found for one in expand(source.paths or source.fallback) for found in read_records(one, needed_fields(source), corpus.max_document_bytes))
    made = (serializer.document(record) for record in records if isinstance(record, Record))
    chosen = list(islice((document for document in made if isinstance(document, Document)), whole_number(options, "documents")))
    write_text(path, "".join(json.dumps({"id": document.id, "text": document.text}) + "\n" for document in chosen))
    return len(chosen), sum(document.bytes for document in chosen)


def _compare(kind: str, folder: Path, argument: str, pairs: int, say: Say) -> Measured:
    found = Measured()
    for pair in range(pairs):
        both = {side: _measure(side, kind, folder, argument) for side in (("ours", "theirs") if pair % 2 else ("theirs", "ours"))}
        if both["ours"].result != both["theirs"].result:
            raise CptError(f"{KINDS[kind]}: ours gave {both['ours'].result}, theirs {both['theirs'].result}: nothing to compare")
        found.ours.append(both["ours"].seconds)
        found.theirs.append(both["theirs"].seconds)
        say(f"{KINDS[kind]}, pair {pair + 1} of {pairs}: {both['ours'].seconds:.1f} s, theirs {both['theirs'].seconds:.1f} s")
    return found


def _measure(side: str, kind: str, folder: Path, argument: str) -> Outcome:
    """In a process of its own, with one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1") | {"TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "cpt.bench.rivals", side, kind, str(folder), argument]
    ended = subprocess.run(command, env=os.environ | one, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise CptError(f"{side}, {KINDS[kind]}: {(ended.stderr.strip() or 'no word').splitlines()[-1]}")
    seconds, result = ended.stdout.split()[-2:]
    return Outcome(float(seconds), result)
