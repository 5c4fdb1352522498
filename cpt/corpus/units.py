"""One unit of each stage on a `Pipeline`: opens what earlier stages left, does the work, leaves files and record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from cpt.core.errors import UserError
from cpt.corpus.benchmarks import Material, build_benchmark
from cpt.corpus.debian import Mirror
from cpt.corpus.documents import Document
from cpt.corpus.overlap import Detector, References, read_items, read_questions
from cpt.corpus.pipeline import Pipeline
from cpt.corpus.readings import require_all_readable
from cpt.corpus.stages.decide import (
    Fates,
    cluster_sizes,
    count_fates,
    decide_fates,
    fetch_texts,
    hold_out,
    load_edges,
    require_some,
    sample_pairs,
)
from cpt.corpus.stages.learn import Sides, learn, score, threshold_of
from cpt.corpus.stages.match import match
from cpt.corpus.stages.records import DecideRecord, describe
from cpt.corpus.stages.select import select
from cpt.corpus.stages.tokenize import Found, staying, write_tokens
from cpt.corpus.tables import DocumentWriter, open_column, read_documents, save_column
from cpt.corpus.tokens import open_tokenizer


def run_unit(pipeline: Pipeline, stage: str, unit: int) -> None:
    """One unit of a stage, by the stage's name. Raises `UserError` for what the user can mend."""
    _WORK[stage](pipeline, unit)


def select_unit(pipeline: Pipeline, unit: int) -> None:
    """As `stages.select`."""
    shard = pipeline.plan.shards[unit]
    select(pipeline.corpus, shard, pipeline.selected(shard))


def learn_unit(pipeline: Pipeline, unit: int) -> None:
    """As `stages.learn`."""
    name = pipeline.learned[unit]
    judged = [source for source in pipeline.judged if pipeline.corpus.sources[source].classifier == name]
    positives, negatives, pool = (
        [pipeline.selected(shard) for source in side for shard in pipeline.shards(source)] for side in (*pipeline.learns_from(name), judged)
    )
    sides = Sides(positives=positives, negatives=negatives, pool=pool)
    with _named(name):
        learn(pipeline.corpus.classifiers[name], pipeline.corpus.seed, sides, pipeline.model(name))


def score_unit(pipeline: Pipeline, unit: int) -> None:
    """As `stages.learn.score`."""
    shard = pipeline.scored[unit]
    score(pipeline.model(pipeline.corpus.sources[shard.source].classifier), pipeline.selected(shard), pipeline.corpus.seed, pipeline.scores(shard))


def match_unit(pipeline: Pipeline, unit: int) -> None:
    """As `stages.match`."""
    band, part = pipeline.bands[unit]
    match(pipeline.all_selected, pipeline.edges(band, part), band, (part, pipeline.ranges), _cut(pipeline))


def decide_unit(pipeline: Pipeline, _unit: int) -> None:
    """Fates, held-out texts, benchmarks, references. Raises `UserError` for a source with too much bad input, or with nothing left."""
    begun, corpus, shards = time.process_time(), pipeline.corpus, pipeline.all_selected
    pipeline.decided.unlink(missing_ok=True)
    records = require_all_readable(pipeline)
    bands = {band: [pipeline.edges(band, part).with_suffix(".npy") for part in range(pipeline.ranges)] for band in range(1 + corpus.dedup.bands)}
    edges = load_edges(bands)
    fates, gone = decide_fates(shards, edges, _cut(pipeline))
    heldout = {name: _hold_out(pipeline, name, fates) for name in corpus.sources}
    counted = {name: count_fates([fates[shard.number] for shard in pipeline.shards(name)]) for name in corpus.sources}
    for name in corpus.sources:
        require_some(name, records[name], counted[name])
    benchmarks, origins = _benchmarks(pipeline, heldout)
    references = _references(pipeline, heldout)
    for shard, _ in shards:
        save_column(pipeline.fates(shard), fates[shard.number])
    files = [pipeline.references, *(pipeline.fates(shard) for shard, _ in shards), *map(pipeline.heldout, heldout), *map(pipeline.benchmark, benchmarks)]
    DecideRecord(
        files=describe(files),
        seconds=time.process_time() - begun,
        fates=counted,
        cuts=_thresholds(pipeline),
        clusters=cluster_sizes(gone),
        pairs=sample_pairs(corpus, shards, fates, edges.near),
        benchmarks=benchmarks,
        origins=origins,
        references={name: counts.items - counts.short - counts.common for name, counts in references.sets.items()},
        too_short={name: counts.short for name, counts in references.sets.items()},
        common={name: counts.common for name, counts in references.sets.items()},
    ).save(pipeline.decided)


def tokenize_unit(pipeline: Pipeline, unit: int) -> None:
    """As `stages.tokenize`: units are the shards of training text, then the held-out text of each source."""
    shards, tokenizer = pipeline.plan.shards, open_tokenizer(pipeline.config)
    found = Found(pipeline.corpus.seed)
    if unit < len(shards):
        shard = shards[unit]
        batches = staying(pipeline.selected(shard).documents, open_column(pipeline.fates(shard)), _detector(pipeline), found)
        prefix = pipeline.prefix(shard.source, f"train-{shard.stem}")
    else:
        source = list(pipeline.corpus.sources)[unit - len(shards)]
        batches, prefix = read_documents(pipeline.heldout(source)), pipeline.prefix(source, "heldout")
    write_tokens(batches, prefix, pipeline.paths.root, tokenizer, found)


_WORK = {"select": select_unit, "learn": learn_unit, "score": score_unit, "match": match_unit, "decide": decide_unit, "tokenize": tokenize_unit}


def _cut(pipeline: Pipeline) -> dict[int, tuple[Path, float]]:
    """Shard number -> (scores, the lowest that stays)."""
    lowest = _thresholds(pipeline)
    return {shard.number: (pipeline.scores(shard), lowest[shard.source]) for shard in pipeline.plan.shards if shard.source in lowest}


def _thresholds(pipeline: Pipeline) -> dict[str, float]:
    found = {}
    for source in pipeline.judged:
        with _named(name := pipeline.corpus.sources[source].classifier):
            found[source] = threshold_of(pipeline.corpus.classifiers[name], pipeline.model(name))
    return found


@contextmanager
def _named(classifier: str) -> Iterator[None]:
    """What is wrong with a classifier says with which."""
    try:
        yield
    except UserError as error:
        raise UserError(
            [replace(one, where=one.where.replace("<name>", classifier), fix=one.fix.replace("<name>", classifier)) for one in error.problems]
        ) from None


def _hold_out(pipeline: Pipeline, source: str, fates: Fates) -> list[Document]:
    """Written down, too."""
    shards = [(shard, pipeline.selected(shard)) for shard in pipeline.shards(source)]
    documents = fetch_texts(shards, hold_out(pipeline.corpus, shards, fates))
    with DocumentWriter(pipeline.heldout(source)) as table:
        for document in documents:
            table.add(document, document.bytes)
    return documents


def _benchmarks(pipeline: Pipeline, heldout: Mapping[str, list[Document]]) -> tuple[dict[str, int], dict[str, str]]:
    """(name -> items, name -> what it was made from)."""
    corpus, titled = pipeline.corpus, dict[str, list[Document]]()
    for name, documents in heldout.items():
        titled.setdefault(corpus.sources[name].group.value, []).extend(document for document in documents if document.title)
    material = Material(titled, Mirror(pipeline.paths.fetched), corpus.seed)
    built = {name.value: build_benchmark(name, material, pipeline.benchmark(name.value)) for name in corpus.benchmarks}
    return {name: items for name, (items, _) in built.items()}, {name: origin for name, (_, origin) in built.items()}


def _references(pipeline: Pipeline, heldout: Mapping[str, list[Document]]) -> References:
    """Written down, too; empty when training text is not asked about them."""
    rules = pipeline.corpus.decontaminate
    found = References(rules.ngram)
    if rules.enabled:
        for built in pipeline.corpus.benchmarks:
            for item, text in read_questions(pipeline.benchmark(built.value)):
                found.add(built.value, item, text)
        for name, paths in rules.benchmarks.items():
            for path in paths:
                for item, text in read_items(path, rules.fields):
                    found.add(name, item, text)
        for source, documents in heldout.items():
            for document in documents:
                found.add(f"held-out {source}", document.id, document.text)
    found = found.without_common(rules.max_items)
    found.save(pipeline.references)
    return found


def _detector(pipeline: Pipeline) -> Detector | None:
    rules = pipeline.corpus.decontaminate
    return _open_detector(pipeline.references, rules.min_share) if rules.enabled else None


@cache
def _open_detector(references: Path, min_share: float) -> Detector:
    """Once in a process: its tables are as large as all that is looked for."""
    return Detector(References.load(references), min_share)
