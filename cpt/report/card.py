"""The data card of a prepared corpus, one page: what became of every document and why, what was measured, and documents to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

from cpt.config.data import CorpusConfig
from cpt.config.filters import FilterConfig
from cpt.config.run import RunConfig
from cpt.core import units
from cpt.core.artifacts import write_text
from cpt.core.manifest import Contamination, DataManifest, SourceRecord
from cpt.corpus.inspection import Inspection
from cpt.data.manifest import prepare_command
from cpt.report import card_documents, card_pictures
from cpt.report.card_classifier import classifier
from cpt.report.card_reasons import FILTERED, GROUPS, explain, grouped, percent
from cpt.report.page import EMPTY, Card, Cell, Html, cards, code, document, folded, join, pairs, paragraph, picture, section, table, text, warnings

_LOST = 0.5
"""Share of a source's documents that a single reason may take before the page says so."""
_NAMED = 10
"""Sources that the subtitle has room for."""
_TOO_SHORT = 0.2
"""Share of a benchmark's items that cannot be looked for before the page says so."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the page is made from."""

    config: RunConfig
    manifest: DataManifest
    inspection: Inspection

    @property
    def corpus(self) -> CorpusConfig:
        """The section."""
        return self.config.corpus

    @property
    def groups(self) -> dict[str, str]:
        """Source -> its group."""
        return {source.name: source.group for source in self.manifest.sources}

    def dropped(self, *reasons: str) -> int:
        """Documents of all sources, by `card_reasons.grouped`."""
        return sum(grouped(source.dropped).get(reason, 0) for source in self.manifest.sources for reason in reasons)


def write_data_card(config: RunConfig) -> Path:
    """Write `card.html` beside the manifest. Raises `UserError` when the corpus is not prepared."""
    paths = config.runs.data(config.corpus.name)
    write_text(paths.card, render(Prepared(config, DataManifest.load(paths.manifest), Inspection.load(paths.inspection))))
    return paths.card


def render(prepared: Prepared) -> str:
    """The page."""
    manifest = prepared.manifest
    groups = Counter(prepared.groups.values())
    names = ", ".join(prepared.groups) if len(prepared.groups) <= _NAMED else ", ".join(f"{number} {group}" for group, number in groups.items())
    parts = [
        warnings(list(_warnings(prepared))),
        _headline(prepared),
        _fates(prepared),
        _tokens(prepared),
        _duplicates(prepared),
        _contamination(prepared),
        *(classifier(prepared.corpus, prepared.inspection, record) for record in manifest.classifiers),
        _scrubbed(prepared),
        card_documents.examples(prepared.corpus, prepared.inspection, manifest, prepared.config.runs.data(manifest.corpus)),
        _provenance(prepared),
    ]
    return document(f"Corpus {manifest.corpus}", f"Data card of {len(manifest.sources)} sources: {names}", join(parts))


def _warnings(prepared: Prepared) -> Iterator[str]:
    for source in prepared.manifest.sources:
        if "fallback" in source.origin.lower():
            yield f"Source {source.name} is a substitute: {source.origin}."
        for reason, number in source.dropped.items():
            if reason != "off_domain" and number > _LOST * source.documents_read:
                yield f"Source {source.name} lost {percent(number / source.documents_read)} of its documents for one reason: {reason}."
    if "general" not in prepared.groups.values():
        yield "There is no general source: what the model forgets cannot be replayed, nor measured."
    for record in prepared.manifest.classifiers:
        if not record.resolved:
            yield f"Classifier {record.name}: its pool does not tell how much domain text it has. Precision and prevalence are upper bounds; read what it kept."
    for one in prepared.manifest.contamination:
        if one.too_short > _TOO_SHORT * (one.items + one.too_short):
            every = one.items + one.too_short
            yield f"{one.too_short} of {every} items of {one.name} have fewer than {prepared.corpus.decontaminate.ngram} words and could not be looked for."
    if not prepared.corpus.decontaminate.enabled:
        yield "Nobody looked for benchmarks and held-out text in training text: corpus.decontaminate.enabled is false."
    if unstated := [source.name for source in prepared.manifest.sources if not source.license]:
        yield f"No license is stated for {', '.join(unstated)}."


def _headline(prepared: Prepared) -> Html:
    sources = prepared.manifest.sources
    read, train, held = (sum(numbers) for numbers in zip(*((s.documents_read, s.train.documents, s.heldout.documents) for s in sources), strict=True))
    tokens, size = sum(source.train.tokens for source in sources), sum(source.train.bytes for source in sources)
    filtered, off = prepared.dropped(FILTERED, GROUPS["language"], GROUPS["unreadable"]), prepared.dropped(GROUPS["off_domain"])
    near, exact, found = prepared.dropped(GROUPS["near_duplicate"]), prepared.dropped(GROUPS["exact_duplicate"]), prepared.dropped(GROUPS["contaminated"])
    looked_for, heldout_tokens = sum(one.items for one in prepared.manifest.contamination), sum(source.heldout.tokens for source in sources)
    speed = sum(source.bytes_read for source in sources) / max(1e-9, prepared.manifest.seconds)
    return cards(
        [
            Card("Tokens to train on", units.count(tokens), f"{units.size(size)} of text, {size / max(1, tokens):.2f} bytes a token"),
            Card("Documents kept", percent((train + held) / max(1, read)), f"{train + held:,} of {read:,} read"),
            Card("Balance of tokens", _balance(sources), "percent domain : general : non-English"),
            Card("Held out", units.count(heldout_tokens), f"tokens of {held:,} documents that training never sees"),
            Card("Left out by rules", f"{filtered:,}", "filters, language, unreadable" + (f"; {off:,} more are off domain" if off else "")),
            Card("Near-duplicates removed", f"{near:,}", f"and {exact:,} exact ones"),
            Card("Contaminated, removed", f"{found:,}", f"{'held one' if found else 'none held any'} of {looked_for:,} items that were looked for"),
            Card("Cost", units.duration(prepared.manifest.seconds), f"of one core, {units.size(speed)} of text a second"),
        ]
    )


def _balance(sources: list[SourceRecord]) -> str:
    """Non-English is the part of the general side that is not English, as in `mixture`."""
    parts = {"domain": 0, "general": 0, "other": 0}
    for source in sources:
        part = "domain" if source.group == "domain" else "general" if source.language.startswith("en") else "other"
        parts[part] += source.train.tokens
    return " : ".join(f"{100 * tokens / max(1, sum(parts.values())):.0f}" for tokens in parts.values())


def _fates(prepared: Prepared) -> Html:
    sources = prepared.manifest.sources
    rows = [
        (
            f"{source.name} ({source.group}, {source.language})",
            f"{source.documents_read:,}",
            units.size(source.bytes_read),
            f"{source.train.documents:,}",
            f"{source.heldout.documents:,}",
            f"{sum(source.dropped.values()):,}",
            units.count(source.train.tokens),
            units.count(source.heldout.tokens),
            f"{source.train.bytes / source.train.tokens:.2f}" if source.train.tokens else "-",
        )
        for source in sources
    ]
    columns = ("source", "read", "text", "trained on", "held out", "left out", "tokens", "held-out tokens", "bytes a token")
    origins = [(source.name, source.license or "not stated", card_documents.wrapped(source.origin)) for source in sources]
    return section(
        "What became of every document",
        picture(card_pictures.fates(sources), "Documents of each source: trained on, held out, or left out and why."),
        table(columns, rows),
        _reasons(prepared.corpus, sources),
        table(("source", "license", "origin"), origins, words=(0, 1, 2), wide=True),
        lead="Every document that was read is counted once: read = trained on + held out + left out.",
    )


def _reasons(corpus: CorpusConfig, sources: list[SourceRecord]) -> Html:
    """A row for each reason, a column for each source that lost something; the most frequent reason first."""
    losers = [source for source in sources if source.dropped]
    if not losers:
        return paragraph("Nothing was left out.")
    totals: dict[str, int] = {}
    for source in losers:
        for reason, number in source.dropped.items():
            totals[reason] = totals.get(reason, 0) + number
    by_number = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    rows: list[tuple[Cell, ...]] = [
        (_name(reason), *(f"{source.dropped[reason]:,}" if reason in source.dropped else "" for source in losers), f"{total:,}") for reason, total in by_number
    ]
    meanings = [(_name(reason), _meaning(reason, corpus, losers)) for reason, _ in by_number]
    counts = table(("left out as", *(source.name for source in losers), "all"), rows, wide=True)
    return join([counts, folded("What these mean", table(("left out as", "because"), meanings, words=(0, 1)))])


def _name(reason: str) -> Html:
    return Html(f"<code>{text(reason)}</code>")


def _meaning(reason: str, corpus: CorpusConfig, sources: list[SourceRecord]) -> str:
    """In words, to the source that lost most by it."""
    loser = max(sources, key=lambda source: source.dropped.get(reason, 0))
    return explain(reason, corpus, loser.name)


def _tokens(prepared: Prepared) -> Html:
    sources, inspected = prepared.manifest.sources, prepared.inspection.sources
    histograms = {source.name: inspected[source.name].lengths for source in sources if source.name in inspected}
    return section(
        "Tokens and lengths",
        picture(card_pictures.tokens(sources), "Tokens to train on: warm is domain, cool is general."),
        picture(card_pictures.lengths(histograms, prepared.groups), "Share of a source's documents by their length in bytes, after the filters."),
        lead="This is what there is; corpus and mixture are chosen apart, and the mixture says how much of it a run reads.",
    )


def _duplicates(prepared: Prepared) -> Html:
    title, inspection, dedup = "Duplicates", prepared.inspection, prepared.corpus.dedup
    if not inspection.clusters:
        return section(title, paragraph("No document is a duplicate of another."))
    sizes = {int(size): number for size, number in inspection.clusters.items()}
    gone = sum((size - 1) * number for size, number in sizes.items())
    lead = (
        f"{gone:,} documents had a twin that stays, in {sum(sizes.values()):,} clusters, the largest of {max(sizes):,}. "
        f"Near-duplicates were found by MinHash of rows of {dedup.ngram} words, in {dedup.bands} bands of {dedup.rows}."
    )
    drawn = picture(card_pictures.clusters(sizes), "Clusters of duplicates by their size.") if len(sizes) > 1 else EMPTY
    return section(title, drawn, card_documents.twins(inspection.pairs), lead=lead)


def _contamination(prepared: Prepared) -> Html:
    title, sets, asked = "Contamination", prepared.manifest.contamination, prepared.corpus.decontaminate
    if not sets:
        return section(title, paragraph("Nothing was looked for in training text."))
    order = sorted(sets, key=lambda one: (-one.documents, one.name))
    found, clean = ([one for one in order if bool(one.found) is side] for side in (True, False))
    lead = (
        f"A document goes when it has {percent(asked.min_share)} or more of an item's rows of {asked.ngram} words. Items with fewer words cannot be looked for."
    )
    shown = _sets(found) if found else paragraph("None of it was found.")
    others = folded(f"Sets of which nothing was found: {len(clean)}", _sets(clean)) if clean else EMPTY
    return section(title, shown, others, card_documents.contaminated(prepared.inspection.contaminated), lead=lead)


def _sets(sets: list[Contamination]) -> Html:
    rows = [(one.name, *(f"{number:,}" for number in (one.items, one.too_short, one.common, one.found, one.documents))) for one in sets]
    return table(("set", "items looked for", "too short", "common", "found", "documents left out"), rows)


def _scrubbed(prepared: Prepared) -> Html:
    title, sources = "Scrubbed", [source for source in prepared.manifest.sources if source.scrubbed]
    if not sources:
        return section(title, paragraph("Nothing was replaced: no filters of these sources ask for it, or nothing was found."))
    kinds = sorted({kind for source in sources for kind in source.scrubbed})
    rows = [(kind, *(f"{source.scrubbed.get(kind, 0):,}" for source in sources)) for kind in kinds]
    lead = "Replacements by a placeholder, in documents that passed the filters."
    return section(title, table(("kind", *(source.name for source in sources)), rows), lead=lead)


def _provenance(prepared: Prepared) -> Html:
    manifest, corpus = prepared.manifest, prepared.corpus
    stages = [(stage.name, f"{stage.units:,}", units.duration(stage.seconds), units.size(stage.bytes)) for stage in manifest.stages]
    facts = [
        ("key of the tokens", manifest.key),
        ("content hash", manifest.content_hash),
        ("fingerprint of the settings", manifest.corpus_fingerprint),
        ("tokenizer", f"{manifest.tokenizer_sha256}, {manifest.vocab_size:,} ids, end of document {manifest.end_of_document_id}, {manifest.dtype}"),
        ("benchmarks", ", ".join(f"{name} ({items:,} items)" for name, items in manifest.benchmarks.items()) or "none"),
        ("held out", f"{percent(corpus.heldout_fraction)} of the documents, {corpus.heldout_max_documents:,} of a source at most; seed {corpus.seed}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))),
    ]
    used = {source.filters for source in corpus.sources.values() if source.filters in corpus.filters}
    profiles = [folded(f"Filters: {name}", _profile(corpus, name)) for name in corpus.filters if name in used]
    made = code(prepare_command(prepared.config))
    return section("How it was made", table(("stage", "units", "time of one core", "files"), stages), pairs(facts), made, *profiles)


def _profile(corpus: CorpusConfig, name: str) -> Html:
    profile: FilterConfig = corpus.filters[name]
    rows = [("sources", ", ".join(source for source, section in corpus.sources.items() if section.filters == name))]
    rows += [("scrub", ", ".join(profile.scrub) or "nothing")]
    for kind in profile.__dataclass_fields__:
        rules = getattr(profile, kind)
        if is_dataclass(rules) and not isinstance(rules, type) and getattr(rules, "enabled", False):
            rows.append((kind, ", ".join(f"{rule} {value}" for rule, value in asdict(rules).items() if rule not in ("enabled", "stop_words"))))
    return pairs(rows)
