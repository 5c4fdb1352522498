"""Documents to look at on the data card: what each reason took, twins side by side, and contaminated ones."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from itertools import islice

from cpt.config.data import CorpusConfig
from cpt.core.manifest import DataManifest, SourceRecord
from cpt.core.paths import DataPaths
from cpt.corpus.inspection import Inspection, SourceInspection
from cpt.corpus.stages.records import Contaminated, Example, Pair
from cpt.report.card_reasons import explain
from cpt.report.page import EMPTY, Html, code, folded, join, paragraph, section, table, text

_SHOWN = 600
"""Characters of an example."""
BRIEF = 260
"""Characters in a table."""
_LONG = 40
"""Characters of a word that may be broken, so that no table is wider than the page."""
_ALIKE = 0.3
"""Share of equal words from which differences are marked."""
_BEGINNING = 400
"""Characters of a pair's texts, where they have as many."""
_PUT_ASIDE = 3
_OPEN = 3
"""Pairs that are shown without being asked for."""


def examples(corpus: CorpusConfig, inspection: Inspection, manifest: DataManifest, paths: DataPaths) -> Html:
    """Per source, and in it per reason, folded: the sentence that explains the reason, and some documents."""
    parts = []
    for source in manifest.sources:
        inspected = inspection.sources.get(source.name)
        if inspected:
            reasons = [*_reasons(corpus, source, inspected), *_put_aside(corpus, source, paths)]
            left_out = sum(source.dropped.values())
            inner = Html(f'<div style="margin-left:20px">{join(reasons).markup}</div>')
            parts.append(folded(f"{source.name}: {source.documents_read:,} read, {left_out:,} left out", inner))
    lead = "Drawn at random, the same ones each time. Texts are shown as they are after scrubbing."
    return section("Documents that stayed and went", *parts, lead=lead)


def _reasons(corpus: CorpusConfig, source: SourceRecord, inspected: SourceInspection) -> Iterator[Html]:
    yield _reason("Stayed after the filters", "", inspected.examples.get("kept", []))
    for reason in sorted(source.dropped, key=lambda reason: (-source.dropped[reason], reason)):
        if reason != "unreadable":
            yield _reason(f"{reason}: {source.dropped[reason]:,}", explain(reason, corpus, source.name), inspected.examples.get(reason, []))


def _reason(title: str, said: str, shown: Sequence[Example]) -> Html:
    if not shown and not said:
        return EMPTY
    return folded(title, join([paragraph(said) if said else EMPTY, *map(_example, shown)]))


def _example(example: Example) -> Html:
    return join([paragraph(wrapped(example.id + (f" ({example.note})" if example.note else "")), "detail"), code(short(example.text, _SHOWN))])


def _put_aside(corpus: CorpusConfig, source: SourceRecord, paths: DataPaths) -> Iterator[Html]:
    """Records that could not be read."""
    file = paths.quarantine(source.name)
    if not source.dropped.get("unreadable") or not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in islice(lines, _PUT_ASIDE)]
    rows = [tuple(wrapped(str(one.get(name, ""))) for name in ("where", "what", "excerpt")) for one in found]
    shown = table(("where", "what", "begins"), rows, words=(0, 1, 2), wide=True)
    yield folded(f"unreadable: {source.dropped['unreadable']:,}", join([paragraph(explain("unreadable", corpus, source.name)), shown]))


def twins(found: Sequence[Pair]) -> Html:
    """What went beside what it is like, differences marked."""
    if not found:
        return EMPTY
    order = sorted(found, key=lambda pair: not _compare(pair.removed_text, pair.kept_text)[1])
    rows = []
    for pair in order:
        left, right = differences(pair.removed_text, pair.kept_text)
        rows.append((_named(pair.removed, left), _named(pair.kept, right)))
    lead = "Some near-duplicates that went, and one that each is linked to, by how they begin; words that differ are marked."
    chained = "Linked are two that share a band of MinHash; where they begin unlike, what they share comes later."
    first, more = (table(("removed", "like"), part, words=(0, 1), wide=True) for part in (rows[:_OPEN], rows[_OPEN:]))
    return join([paragraph(lead), first, folded(f"More pairs: {len(rows) - _OPEN}", join([paragraph(chained), more])) if rows[_OPEN:] else EMPTY])


def differences(removed: str, kept: str) -> tuple[Html, Html]:
    """Both texts with the words marked that the other one does not have; unmarked when little is alike."""
    left, right = removed.split(), kept.split()
    steps = _compare(removed, kept)[0]
    cut = min(len(removed), len(kept)) >= _BEGINNING  # both go on: that one ends here, and the other a word later, is no difference
    marks = [step[0] != "equal" and not (cut and step is steps[-1]) for step in steps]
    return (
        _marked([(left[step[1] : step[2]], mark) for step, mark in zip(steps, marks, strict=True)]),
        _marked([(right[step[3] : step[4]], mark) for step, mark in zip(steps, marks, strict=True)]),
    )


def _compare(removed: str, kept: str) -> tuple[list[tuple[str, int, int, int, int]], bool]:
    """(steps from the words of one text to those of the other, one step where little is alike; whether much is)."""
    left, right = removed.split(), kept.split()
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    alike = matcher.ratio() >= _ALIKE
    return (list(matcher.get_opcodes()) if alike else [("equal", 0, len(left), 0, len(right))]), alike


def contaminated(found: Sequence[Contaminated]) -> Html:
    """Documents that were left out, and the item that they hold."""
    if not found:
        return EMPTY
    rows = [(wrapped(one.id), wrapped(f"{one.set}: {one.item}"), f"{100 * one.share:.0f}%", wrapped(short(one.text, BRIEF))) for one in found]
    return folded(
        f"Documents that were left out: {len(found)} examples", table(("document", "holds", "of its rows", "begins"), rows, words=(0, 1, 3), wide=True)
    )


def wrapped(value: str) -> Html:
    """Escaped; long words may be broken."""
    words = (word for word in value.split())
    return Html(" ".join("<wbr>".join(text(word[start : start + _LONG]) for start in range(0, len(word), _LONG)) for word in words))


def _named(name: str, content: Html) -> Html:
    return Html(f'<div class="detail">{wrapped(name).markup}</div>{content.markup}')


def _marked(parts: Sequence[tuple[Sequence[str], bool]]) -> Html:
    pieces = [(wrapped(" ".join(words)).markup, mark) for words, mark in parts if words]
    return Html(" ".join(f'<mark style="background:#fce8bf">{markup}</mark>' if mark else markup for markup, mark in pieces))


def short(value: str, most: int) -> str:
    """Its beginning."""
    return value if len(value) <= most else value[:most].rstrip() + " …"
