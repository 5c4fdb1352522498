"""`cpt prepare --sample N`: what scrubbing, language and filters do to some documents of each source. Makes nothing."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from rich.console import Console

from cpt.config.data import CorpusConfig
from cpt.config.run import RunConfig
from cpt.core.errors import EXIT_DONE
from cpt.corpus.debian import Mirror
from cpt.corpus.documents import Document, draw
from cpt.corpus.fetch import fetch
from cpt.corpus.formats import Bad, expand
from cpt.corpus.readers import check_files, read_file
from cpt.corpus.screen import Screen, Verdict
from cpt.corpus.stages.select import as_files

_READ = 2000
"""Documents of a source among which some are drawn."""
_WIDTH = 150


def look(config: RunConfig, number: int, console: Console) -> int:
    """Each source's first documents, `number` of them drawn, and what became of each."""
    corpus, folder = config.corpus, config.runs.data(config.corpus.name).fetched
    check_files(corpus)
    fetched = fetch(corpus, folder, Mirror(folder))
    for name, source in corpus.sources.items():
        paths = fetched[name].parts if name in fetched else source.paths
        found = list(islice(_read(corpus, name, paths), _READ))
        drawn = sorted(found, key=lambda one: draw(corpus.seed, "look", one.where if isinstance(one, Bad) else one.id))[:number]
        _show(name, corpus, drawn, len(found), console)
    return EXIT_DONE


def _read(corpus: CorpusConfig, name: str, paths: Sequence[str]) -> Iterator[Document | Bad]:
    for path in expand(paths):
        yield from read_file(path, as_files(corpus.sources[name]), corpus.max_document_bytes)


def _show(name: str, corpus: CorpusConfig, documents: list[Document | Bad], read: int, console: Console) -> None:
    screen, counts = Screen(corpus, corpus.sources[name]), Counter[str]()
    console.print(f"\n{name}: {len(documents)} of its first {read} documents, filters={corpus.sources[name].filters}", style="bold")
    for one in documents:
        if isinstance(one, Bad):
            counts["unreadable"] += 1
            console.print(f"  unreadable  {one.where}: {one.what}", style="red")
            continue
        verdict = screen.look(one.text)
        counts[verdict.reason or "kept"] += 1
        _show_one(one, verdict, console)
    console.print("  " + ", ".join(f"{number} {reason}" for reason, number in counts.most_common()))


def _show_one(document: Document, verdict: Verdict, console: Console) -> None:
    flat = " ".join(document.text.split())
    console.print(f"  {verdict.reason or 'kept'}  {document.id}  ({document.bytes} bytes)", style="yellow" if verdict.reason else "green")
    console.print(f"      {flat[:_WIDTH]}{' ...' if len(flat) > _WIDTH else ''}", style="dim")
    if verdict.scrubbed:
        console.print("      scrubbed: " + ", ".join(f"{number} {kind}" for kind, number in verdict.scrubbed.items()))
    if not verdict.reason and verdict.text != document.text:
        for line in islice(_changes(document.text, verdict.text), 6):
            console.print(f"      {line[:_WIDTH]}", style="dim")


def _changes(before: str, after: str) -> Iterator[str]:
    """Lines that went and lines that came."""
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0):
        if line[:1] in "+-" and line[:3] not in ("+++", "---"):
            yield line
