"""Sections about data: `corpus` (what is prepared) and `mixture` (what is read, in which shares of tokens)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cpt.config.filters import FilterConfig, profiles
from cpt.config.section import Section, fraction, positive
from cpt.core.errors import Problem


class SourceGroup(StrEnum):
    """Which side of the domain : general balance a source is on."""

    domain = "domain"
    general = "general"


class Reader(StrEnum):
    """Where documents come from."""

    files = "files"  # .jsonl, .parquet, .csv, .tsv, .txt, .md; also .gz, .zst, .bz2, .xz of these
    debian_catalogue = "debian_catalogue"  # package descriptions as listings
    debian_packages = "debian_packages"  # text files inside named packages


class Parser(StrEnum):
    """How text is found inside an unpacked package."""

    none = "none"
    novels = "novels"  # character vectors in an R data package, cut into chapters
    dictd = "dictd"  # the dictd server's .index and .dict.dz
    man = "man"  # compressed manual pages, roff stripped to text


class Benchmark(StrEnum):
    """Multiple-choice sets that can be built beside a corpus."""

    quiz = "quiz"  # general knowledge, from the bsdgames quiz files
    definition = "definition"  # general: definition -> word, from held-out dictionary entries
    titles = "titles"  # domain: description -> title, from held-out listings
    sections = "sections"  # domain: title and description -> section of the catalogue, from held-out listings


class BadInput(StrEnum):
    """What is done about records that cannot be read."""

    stop = "stop"
    quarantine = "quarantine"  # put aside in `<source>/quarantine.jsonl`, counted, and stopped at when they are too many


@dataclass(kw_only=True, slots=True)
class FieldNames(Section):
    """Where a record's fields are; `a.b` for one inside another. All but the text may be missing."""

    text: str = "text"
    id: str = "id"
    family: str = "family"
    """What must stay on one side of the train : held-out split: a product's variants, a site's pages."""
    title: str = "title"
    topic: str = "topic"
    truth: str = ""
    """Whether the document really is of the domain, where somebody knows: a classifier never sees it and is measured by it."""


@dataclass(kw_only=True, slots=True)
class SourceConfig(Section):
    """One source of documents."""

    group: SourceGroup = SourceGroup.general
    language: str = "en"
    reader: Reader = Reader.files
    paths: list[str] = field(default_factory=list)
    """Files and patterns of a `files` source; relative to the working directory, else to the checkout; or any address that fsspec knows (s3://...)."""
    template: str = ""
    """How a structured record becomes text, e.g. `"{title}\n{attributes}\nPrice: {price} {currency}\n\n{description}"`; a line whose fields are all
    missing or empty is left out. Without a template the record's own text is taken."""
    fields: FieldNames = field(default_factory=FieldNames)
    fallback: list[str] = field(default_factory=list)
    """`jsonl` files used instead when a `debian_*` source cannot reach its mirror."""
    packages: list[str] = field(default_factory=list)
    """Package names of a `debian_packages` source."""
    parser: Parser = Parser.none
    filters: str = "none"
    """A profile of `corpus.filters`: none, listing, prose, web, or your own."""
    license: str = ""
    share: float = 1.0
    """Of its documents, drawn by their ids with the corpus seed."""
    classifier: str = ""
    """One of `corpus.classifiers`: only what it puts above its cut stays. What does not may stay in a later source with the same files."""

    def problems(self) -> Iterator[Problem]:
        if self.reader is Reader.files and not self.paths:
            yield Problem(where="paths", what="is empty", why="a source of files reads some", fix="paths=[data/listings.jsonl]")
        if self.template and not re.search(r"\{[A-Za-z_]", self.template):
            yield Problem(where="template", what=f"is {self.template!r}", why="names no field: every document would be the same", fix="template='{title}'")
        if self.reader is Reader.debian_packages:
            yield from self._package_problems()
        yield from positive(self, "share")
        yield from fraction(self, "share")

    def _package_problems(self) -> Iterator[Problem]:
        if not self.packages:
            yield Problem(where="packages", what="is empty", why="a debian_packages source unpacks packages", fix="packages=[dict-wn]")
        if self.parser is Parser.none:
            yield Problem(where="parser", what="is none", why="text inside packages needs a parser", fix="parser=novels or dictd or man")
        for name in self.packages:
            if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
                yield Problem(where="packages", what=f"holds {name!r}", why="is no Debian package name", fix="packages=[dict-wn]")


@dataclass(kw_only=True, slots=True)
class DedupConfig(Section):
    """Duplicate removal, exact and by MinHash LSH; FineWeb's numbers (5-grams, 14 bands x 8 rows, threshold 0.72)."""

    ngram: int = 5
    """Words in a shingle."""
    bands: int = 14
    rows: int = 8

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "ngram", "bands", "rows")


class Backend(StrEnum):
    """Who learns to tell domain text from other text."""

    sklearn = "sklearn"  # hashed 1- and 2-grams of words, logistic loss: the same model each time
    fasttext = "fasttext"  # DCLM's practice (Li et al. 2024, arXiv 2406.11794)


class CutBy(StrEnum):
    """What `cut` is."""

    precision = "precision"  # the lowest score at which so much of what stays is estimated to be of the domain
    quantile = "quantile"  # the score below which so much of the pool lies: 0.9 keeps the best tenth
    score = "score"


@dataclass(kw_only=True, slots=True)
class ClassifierConfig(Section):
    """Tells domain text from the rest, so that domain documents can be pulled out of a general corpus: learned from what passed the filters."""

    backend: Backend = Backend.sklearn
    positives: list[str] = field(default_factory=list)
    """Sources of domain text."""
    negatives: list[str] = field(default_factory=list)
    """Sources of other text; none named takes the sources that it will judge, hidden domain documents included."""
    documents: int = 50_000
    """Of each side, at most, drawn with the corpus seed. Two models learn from a half each, and judge the half that they have not seen."""
    cut_by: CutBy = CutBy.precision
    cut: float = 0.9

    def problems(self) -> Iterator[Problem]:
        yield from fraction(self, "cut")
        yield from positive(self, "documents")
        if not self.positives:
            yield Problem(where="positives", what="is empty", why="is learned from domain text", fix="positives=[<sources of domain text>]")


@dataclass(kw_only=True, slots=True)
class DecontaminateConfig(Section):
    """Training text that holds what a model is measured on goes: every benchmark and held-out set of the corpus, and the benchmarks named here."""

    enabled: bool = True
    ngram: int = 8
    """Words. Tulu 3 (Lambert et al. 2024, arXiv 2411.15124, section 3.2) matches 8-grams; GPT-3 matched 13."""
    min_share: float = 0.5
    """Of an item's n-grams that a document must hold to be contaminated by it (Tulu 3)."""
    max_items: int = 3
    """n-grams that more items of one set have are no evidence: licenses, the wording of forms."""
    benchmarks: dict[str, list[str]] = field(default_factory=dict)
    """Name -> files of its items: `{mmlu: [data/mmlu/*.jsonl]}`."""
    fields: list[str] = field(default_factory=lambda: ["question", "prompt", "input", "text"])
    """The first of these that an item has is looked for."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "ngram", "min_share", "max_items")
        yield from fraction(self, "min_share")


@dataclass(kw_only=True, slots=True)
class CorpusConfig(Section):
    """A named set of sources, prepared once and used by many runs."""

    name: str = ""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    filters: dict[str, FilterConfig] = field(default_factory=profiles)
    """Profile -> rules and thresholds; `corpus.filters.web.quality.min_words=30` changes one."""
    bad_input: BadInput = BadInput.stop
    max_bad_share: float = 0.001
    """Of a source's records, with `bad_input=quarantine`."""
    max_document_bytes: int = 64_000_000
    """What holds more is bad input."""
    shard_bytes: int = 512_000_000
    """Input that one task reads at a time, and so the text of one token file; whole files where they cannot be cut."""
    dedup: DedupConfig = field(default_factory=DedupConfig)
    classifiers: dict[str, ClassifierConfig] = field(default_factory=dict)
    decontaminate: DecontaminateConfig = field(default_factory=DecontaminateConfig)
    heldout_fraction: float = 0.05
    """Share of documents, chosen after dedup, that training never sees."""
    heldout_max_documents: int = 2000
    benchmarks: list[Benchmark] = field(default_factory=list)
    """Multiple-choice sets to build beside the data."""
    seed: int = 0

    def problems(self) -> Iterator[Problem]:
        yield from fraction(self, "heldout_fraction", "max_bad_share")
        yield from positive(self, "heldout_max_documents", "max_document_bytes", "shard_bytes")
        if not self.sources:
            yield Problem(where="sources", what="is empty", why="there is nothing to prepare", fix="corpus=demo")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            yield Problem(where="name", what=f"is {self.name!r}", why="is a folder below <run_root>/data", fix="corpus.name=<letters, digits, _ . ->")
        for name, source in self.sources.items():
            if source.filters not in self.filters:
                known = ", ".join(self.filters)
                yield Problem(where=f"sources.{name}.filters", what=f"is {source.filters}", why="is no profile of corpus.filters", fix=f"one of {known}")
            if not re.fullmatch(r"[A-Za-z]\w*", name) or name == "benchmarks":
                yield Problem(where=f"sources.{name}", what="is no source name", why="is a folder beside `benchmarks`", fix="letters, digits and _")
        yield from self._classifier_problems()

    def _classifier_problems(self) -> Iterator[Problem]:
        for name, source in self.sources.items():
            if source.classifier and source.classifier not in self.classifiers:
                known = ", ".join(self.classifiers) or "none"
                yield Problem(
                    where=f"sources.{name}.classifier",
                    what=f"is {source.classifier}",
                    why=f"corpus.classifiers has {known}",
                    fix=f"classifiers.{source.classifier}",
                )
        for name, classifier in self.classifiers.items():
            for side in ("positives", "negatives"):
                for source_name in getattr(classifier, side):
                    if source_name not in self.sources:
                        where = f"classifiers.{name}.{side}"
                        yield Problem(where=where, what=f"names {source_name}", why="is no source", fix=f"{where}=[{', '.join(self.sources)}]")
            if not classifier.negatives and not any(source.classifier == name for source in self.sources.values()):
                why = "no source has it as its classifier, and no negatives are named"
                yield Problem(where=f"classifiers.{name}", what="judges nothing", why=why, fix=f"sources.<name>.classifier={name}")


class OnCap(StrEnum):
    """What happens to a source that would be read more often than its cap allows."""

    refuse = "refuse"
    redistribute = "redistribute"  # it gets what its cap allows, and the rest of its part goes to the others of that part


@dataclass(kw_only=True, slots=True)
class MixtureConfig(Section):
    """Shares of the tokens trained on: not of documents, not of the loss, and not probabilities; samples follow them exactly at every step.

    `domain_share` of all tokens goes to the domain sources, the rest to general replay; `non_english_share` is a share
    of the general side. Inside each of the three parts sources share in proportion to their size, unless `weights` names them.
    """

    domain_share: float = 0.5
    non_english_share: float = 0.1
    weights: dict[str, float] = field(default_factory=dict)
    """Relative weights inside a part, in tokens: of `{a: 2, b: 1}`, twice as many tokens of the part come from a. 0 leaves a source out. Where none
    is named, or only those that are left out, each weighs the tokens it has, so that an epoch of each ends together; to name some and not others is refused."""
    max_epochs: float = 4.0
    """No source repeats more often than this over the whole run (Muennighoff 2023: value decays after about 4)."""
    epoch_caps: dict[str, float] = field(default_factory=dict)
    """Instead of `max_epochs` for the sources named: `{novels: 1.0}`."""
    on_cap: OnCap = OnCap.refuse

    def problems(self) -> Iterator[Problem]:
        yield from fraction(self, "domain_share", "non_english_share")
        yield from positive(self, "max_epochs")
        for name, cap in self.epoch_caps.items():
            if not cap > 0:
                yield Problem(where=f"epoch_caps.{name}", what=f"is {cap}", why="counts epochs; weight 0 leaves a source out", fix=f"weights.{name}=0")
