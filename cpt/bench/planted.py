"""`cpt bench recall`: what the pipeline must find is planted in a real corpus, the real pipeline runs, and what it found is counted.

::

    listings   domain documents                        by families, `share` of them
    mined      the others among all general documents  judged by a classifier that does not know which are which
    general    the same documents again                what the classifier leaves stays here
    planted    copies of documents of these sources; held-back documents that hide a held-back question

Nothing that a filter dropped is counted: of a copy neither it nor what it is a copy of.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf

from cpt.bench.figures import Figures, Say, whole_number
from cpt.bench.planting import EXACT, LEAST_WORDS, Copies, Items, Passages, Plant, counts, likeness, plant_copies, plant_questions
from cpt.config.compose import compose_parts
from cpt.config.data import ClassifierConfig, CorpusConfig, CutBy, FieldNames, Reader, SourceConfig, SourceGroup
from cpt.core.artifacts import write_bytes, write_text
from cpt.core.errors import Problem, UserError
from cpt.corpus.debian import Mirror
from cpt.corpus.documents import Document, draw, drawn
from cpt.corpus.fetch import fetch
from cpt.corpus.formats import expand, local
from cpt.corpus.pipeline import Pipeline, plan_corpus
from cpt.corpus.prepare import prepare
from cpt.corpus.readers import read_file
from cpt.corpus.stages.decide import Fate
from cpt.corpus.stages.learn import how_it_does, read_curve, sample
from cpt.corpus.stages.select import as_files
from cpt.corpus.tables import open_column, read_documents
from cpt.corpus.words import words_of
from cpt.data.indexed import ids_path

OPTIONS = {
    "documents": "4000", "plants": "200", "likeness": "0.5,0.7,0.8,0.9", "share": "0.6", "profile": "", "backends": "sklearn", "fetched": "", "workers": "2",
    "tokenizer": "tests/assets/tokenizer.json", "folder": "runs/bench",
}  # fmt: skip
"""Documents of each source; plants of each kind; how alike copies are; the share of domain documents that is known as such; filters of all other sources
(default: of the source that a classifier judges, else of the largest general one); classifiers; where packages were fetched; processes; whose disk."""

COLUMNS = ("", "planted", "found", "recall", "expected", "false finds", "precision", "estimated")
_PRECISIONS = (0.5, 0.8, 0.95)
"""Cuts that are looked at beside the corpus's own."""
_DUPLICATES = (Fate.near_duplicate, Fate.exact_duplicate)


@dataclass(frozen=True, slots=True)
class Planted:
    """What was planted where: id -> each."""

    plants: dict[str, Plant]
    questions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a document that passed its filters. `bands`: its keys; `left_out`: by decontamination."""

    text: str
    fate: Fate
    left_out: bool
    bands: npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """A row. `expected`: the recall that theory gives, or that the pipeline says; `estimated`: the precision that it says."""

    name: str
    planted: int | None = None
    found: int | None = None
    expected: float | None = None
    false: int | None = None
    estimated: float | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """Of a table."""
        found, false = self.found, self.false
        recall = None if found is None or not self.planted else found / self.planted
        precision = None if not found or false is None or self.estimated is None else found / (found + false)
        shares = ["" if value is None else f"{value:.3f}" for value in (recall, self.expected, precision, self.estimated)]
        numbers = ["" if value is None else f"{value:,}" for value in (self.planted, self.found, self.false)]
        return (self.name, *numbers[:2], *shares[:2], numbers[2], *shares[2:])


def run(options: Mapping[str, str], overrides: Sequence[str], say: Say) -> Figures:
    """A row for each kind of plant, and for each cut of each classifier."""
    Path(options["folder"]).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="recall-", dir=options["folder"]) as name:
        root = Path(name).absolute()
        planted = _plant(compose_parts(overrides).corpus, options, root)
        write_bytes(root / "base/tiny/tokenizer.json", Path(local(options["tokenizer"])).read_bytes())
        rows, notes = list[Counted](), list[str]()
        for backend in options["backends"].split(","):
            begun = time.perf_counter()
            config = compose_parts(["model=tiny", "corpus=planted", f"run_root={root}", f"corpus.classifiers.domain.backend={backend}"])
            manifest = prepare(config, lambda progress: None, whole_number(options, "workers"))
            seconds = time.perf_counter() - begun
            say(f"prepared with {backend} in {seconds:.1f} s")
            pipeline = plan_corpus(config)
            if not rows:
                rows, notes = _found(pipeline, planted)
                of_stages = ", ".join(f"{stage.name} {stage.seconds:.1f} s" for stage in manifest.stages)
                notes.append(f"{sum(source.documents_read for source in manifest.sources):,} documents read; {seconds:.1f} s in all; of one core: {of_stages}")
            judged, said = _judged(pipeline, backend)
            rows, notes = rows + judged, [*notes, said]
    return Figures(columns=COLUMNS, rows=[row.cells for row in rows], data={"rows": [asdict(row) for row in rows]}, notes=notes)


def _plant(corpus: CorpusConfig, options: Mapping[str, str], root: Path) -> Planted:
    """The corpus, below `root`. Raises `UserError` for one that has no two sides, or too few documents that are long enough."""
    domain, general = _sides(corpus)
    read = _read(replace(corpus, sources={name: corpus.sources[name] for name in (domain, *general)}), options, root)
    known = {each.id: drawn(corpus.seed, each.family or each.id, float(options["share"]), "known") for each in read[domain]}
    others = sorted(chain.from_iterable(read[name] for name in general), key=lambda each: draw(corpus.seed, "hosts", each.id))
    long = [each for each in others if _is_long(each)]
    number, likenesses = whole_number(options, "plants"), list(map(float, options["likeness"].split(",")))
    number = min(number, len(long) // 12)  # half of them, at most, is held back
    if not number:
        what = f"have {len(long)} documents of at least {LEAST_WORDS} words"
        raise UserError(Problem(where="corpus.sources", what=what, why="what is planted is made of 12 at least", fix="documents=20000, or another corpus"))
    held = {each.id for each in long[: 6 * number]}
    listings = [each for each in read[domain] if known[each.id]]
    pool = [each for each in others if each.id not in held] + [each for each in read[domain] if not known[each.id]]
    pool.sort(key=lambda each: draw(corpus.seed, "pool", each.id))
    vocabulary = sorted({word for each in others for word in re.findall(r"\b[a-z]{4,12}\b", each.text)})
    copies = Copies(corpus.seed, vocabulary, words_of("en").simplified, corpus.dedup.ngram)
    originals = [each for pair in zip_longest(filter(_is_long, listings), long[6 * number :]) for each in pair if each]
    plants = plant_copies(copies, originals, number, likenesses)
    passages, rules = Passages(corpus.seed, vocabulary, corpus.decontaminate), corpus.decontaminate
    questions = plant_questions(passages, rules.ngram, long[: 6 * number], chain.from_iterable(read.values()), plants)
    write = {"listings": map(asdict, listings), "pool": (asdict(each) | {"truth": each.id in known} for each in pool)}
    write |= {"planted": ({"id": each.id, "text": each.text} for each in plants), "questions": ({"id": id, "question": text} for id, text in questions.items())}
    for name, rows in write.items():
        write_text(root / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    sizes = {corpus.sources[name].filters: len(read[name]) for name in general}
    judged = next((source.filters for source in corpus.sources.values() if source.classifier), "")
    _write_config(corpus, domain, options["profile"] or judged or max(sizes, key=sizes.__getitem__), root)
    return Planted({each.id: each for each in plants}, questions)


def _sides(corpus: CorpusConfig) -> tuple[str, list[str]]:
    """(the first domain source that no classifier judges, the general English sources)."""
    domain = [name for name, source in corpus.sources.items() if source.group is SourceGroup.domain and not source.classifier]
    general = [name for name, source in corpus.sources.items() if source.group is SourceGroup.general and source.language == "en"]
    if not domain or not general:
        what = f"has {len(domain)} domain and {len(general)} general English sources"
        raise UserError(Problem(where=f"corpus={corpus.name}", what=what, why="domain documents are hidden among general ones", fix="corpus=sample or debian"))
    return domain[0], general


def _read(corpus: CorpusConfig, options: Mapping[str, str], root: Path) -> dict[str, list[Document]]:
    """Of each source the documents with the smallest draws, each id once, and none that is empty."""
    place = Path(options["fetched"] or root / "fetched").absolute()
    fetched = fetch(corpus, place, Mirror(place))
    found = {}
    for name, source in corpus.sources.items():
        paths, source = fetched[name].parts if source.reader is not Reader.files else source.paths, as_files(source)
        made = (one for path in expand(paths) for one in read_file(path, source, corpus.max_document_bytes))
        by_id = {one.id: one for one in made if isinstance(one, Document) and one.text.strip()}
        chosen = sorted(by_id.values(), key=lambda one: draw(corpus.seed, "recall", one.id))[: whole_number(options, "documents")]
        found[name] = [replace(one, id=f"{name}/{one.id}", family=f"{name}/{one.family}" if one.family else "", truth=None) for one in chosen]
    return found


def _is_long(document: Document) -> bool:
    return len(document.text.split()) >= LEAST_WORDS


def _write_config(corpus: CorpusConfig, domain: str, profile: str, root: Path) -> None:
    """As corpus `planted`, where Hydra finds it."""
    listings = SourceConfig(group=SourceGroup.domain, paths=[f"{root}/listings.jsonl"], filters=corpus.sources[domain].filters, license="see its source")
    mined = replace(listings, paths=[f"{root}/pool.jsonl"], filters=profile, classifier="domain", fields=FieldNames(truth="truth"))
    general = replace(mined, group=SourceGroup.general, classifier="", fields=FieldNames())
    sources = {"listings": listings, "mined": mined, "general": general, "planted": replace(general, paths=[f"{root}/planted.jsonl"])}
    own = next((corpus.classifiers[source.classifier] for source in corpus.sources.values() if source.classifier), None)
    classifier = replace(own or ClassifierConfig(cut_by=CutBy.quantile), positives=["listings"], negatives=[])
    rules = replace(corpus.decontaminate, enabled=True, fields=["question"], benchmarks={"questions": [f"{root}/questions.jsonl"]})
    made = replace(corpus, name="planted", sources=sources, classifiers={"domain": classifier}, decontaminate=rules, benchmarks=[])
    write_text(root / "conf/corpus/planted.yaml", OmegaConf.to_yaml(OmegaConf.structured(made)))


def _found(pipeline: Pipeline, planted: Planted) -> tuple[list[Counted], list[str]]:
    """Copies and questions."""
    ended = {name: _ended(pipeline, name) for name in pipeline.corpus.sources}
    rows, notes = _copies_found(pipeline, planted, ended)
    return rows + _questions_found(pipeline, planted, ended), notes


def _ended(pipeline: Pipeline, source: str) -> dict[str, Ended]:
    """Documents of a source by id."""
    found = {}
    for shard in pipeline.shards(source):
        selected, fates = pipeline.selected(shard), open_column(pipeline.fates(shard))
        bands, order = np.array(open_column(selected.keys)[1:]), np.asarray(open_column(selected.order)[1:], dtype=np.int64)
        np.put_along_axis(bands, order, bands.copy(), axis=1)
        trained = set(map(json.loads, ids_path(pipeline.prefix(source, f"train-{shard.stem}")).read_text().splitlines()))
        documents = (document for batch in read_documents(selected.documents, ("id", "text")) for document in batch)
        for row, document in enumerate(documents):
            fate = Fate(int(fates[row]))
            found[document.id] = Ended(document.text, fate, fate is Fate.train and document.id not in trained, bands[:, row])
    return found


def _copies_found(pipeline: Pipeline, planted: Planted, ended: Mapping[str, dict[str, Ended]]) -> tuple[list[Counted], list[str]]:
    dedup, simplify = pipeline.corpus.dedup, words_of("en").simplified
    copies, originals = Copies(0, [], simplify, dedup.ngram), ended["general"] | ended["listings"]
    pairs: dict[str, list[tuple[Ended, Ended]]] = {}
    for id, plant in planted.plants.items():
        if id in ended["planted"] and plant.of in originals:
            pairs.setdefault(plant.kind, []).append((ended["planted"][id], originals[plant.of]))
    rows, direct = list[Counted](), list[str]()
    for kind, each in pairs.items():
        wanted = (Fate.exact_duplicate,) if kind == EXACT else _DUPLICATES
        likenesses = np.array([likeness(copies.grams(copy.text), copies.grams(original.text)) for copy, original in each])
        expected = float(np.mean(1 - (1 - likenesses**dedup.rows) ** dedup.bands))
        rows.append(Counted(name=kind, planted=len(each), found=sum(copy.fate in wanted for copy, _ in each), expected=expected))
        direct.append(f"{sum(bool(np.any((copy.bands == original.bands) & (copy.bands > 0))) for copy, original in each)} of {kind}")
    others = [one.fate for name in ("listings", "mined") for one in ended[name].values()]
    others += [one.fate for id, one in ended["general"].items() if id not in ended["mined"] or ended["mined"][id].fate is Fate.off_domain]
    rows += [Counted(name=f"not planted, {fate.name.replace('_', ' ')}", found=others.count(fate)) for fate in _DUPLICATES]
    return rows, [f"sharing a band with what they are copies of, the others being like one more document: {', '.join(direct)}"]


def _questions_found(pipeline: Pipeline, planted: Planted, ended: Mapping[str, dict[str, Ended]]) -> list[Counted]:
    """A plant that must not be found counts only where its host holds no item either."""
    rules = pipeline.corpus.decontaminate
    heldout = ((one.text for batch in read_documents(pipeline.heldout(name), ("text",)) for one in batch) for name in pipeline.corpus.sources)
    items = Items(rules, [planted.questions.values(), *heldout])
    by_kind: dict[str, list[Ended]] = {}
    others = [one for name in ended if name != "planted" for one in ended[name].values() if one.left_out]
    for id, one in ended["planted"].items():
        plant = planted.plants[id]
        if one.fate is Fate.train and plant.of in planted.questions and (counts(plant.kind) or items.most(one.text) < rules.min_share):
            by_kind.setdefault(plant.kind, []).append(one)
    rows = []
    for kind, each in by_kind.items():
        found = sum(one.left_out for one in each)
        false = None if counts(kind) else found
        rows.append(Counted(name=kind, planted=len(each), found=found, expected=float(counts(kind)), false=false))
    false = sum(items.most(one.text) < rules.min_share for one in others)
    return [*rows, Counted(name="not planted, left out", found=len(others), false=false)]


def _judged(pipeline: Pipeline, backend: str) -> tuple[list[Counted], str]:
    """Of one classifier, at its cut and at others."""
    section, model = pipeline.corpus.classifiers["domain"], pipeline.model("domain")
    shards = pipeline.shards("mined")
    truth = np.array([bool(each.truth) for shard in shards for batch in read_documents(pipeline.selected(shard).documents, ("truth",)) for each in batch])
    scores = np.concatenate([open_column(pipeline.scores(shard)) for shard in shards])
    rows = list[Counted]()
    for one in (section, *(replace(section, cut_by=CutBy.precision, cut=cut) for cut in _PRECISIONS)):
        name = f"{backend}, {one.cut_by.value} {one.cut:g}"
        try:
            said = how_it_does(one, model)
        except UserError:
            rows.append(Counted(name=f"{name}: refused", planted=int(truth.sum())))
            continue
        kept = scores >= np.float32(said.cut)
        found, false = int((kept & truth).sum()), int((kept & ~truth).sum())
        rows.append(Counted(name=name, planted=int(truth.sum()), found=found, expected=said.recall, false=false, estimated=said.precision))
    curve = read_curve(model)
    told = "" if curve.resolved else ", which it cannot tell"
    return (
        rows,
        f"{backend}: {_learned(pipeline)}; of {len(truth):,} documents {truth.mean():.2%} are of the domain, estimated {curve.prevalence:.2%}{told}; AUC {curve.auc:.4f}",
    )


def _learned(pipeline: Pipeline) -> str:
    """What one model has learned as other text, hidden domain documents included, is judged by the other: it must fare like the rest."""
    section, selected = pipeline.corpus.classifiers["domain"], [pipeline.selected(shard) for shard in pipeline.shards("mined")]
    learned = {each.id for each in sample(selected, section.documents, pipeline.corpus.seed, "negatives")}
    stays: dict[bool, list[bool]] = {True: [], False: []}
    for shard, one in zip(pipeline.shards("mined"), selected, strict=True):
        documents = (each for batch in read_documents(one.documents, ("id", "truth")) for each in batch)
        for document, fate in zip(documents, open_column(pipeline.fates(shard)), strict=True):
            if document.truth:
                stays[document.id in learned].append(fate != Fate.off_domain)
    said = {side: f"{sum(each)} of the {len(each)} domain documents" for side, each in stays.items()}
    return f"at its own cut it keeps {said[False]} that no model has learned from, and {said[True]} that one has learned as other text"
