"""The manifest: made from the records of all units, and shown as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from cpt.core.artifacts import sha256_json
from cpt.core.errors import CptError, Problem, UserError
from cpt.core.manifest import ClassifierRecord, Contamination, DataManifest, SourceRecord, SplitRecord, StageRecord
from cpt.core.units import count, duration, size
from cpt.corpus.pipeline import Pipeline, Stage
from cpt.corpus.readings import require_all_readable
from cpt.corpus.stages.learn import how_it_does, read_curve
from cpt.corpus.stages.records import DecideRecord, LearnRecord, SelectRecord, TokenRecord, merged, reasons
from cpt.corpus.tokens import open_tokenizer
from cpt.data.manifest import corpus_fingerprint


def make_manifest(pipeline: Pipeline) -> DataManifest:
    """Raises `CptError` when documents were lost on the way, which would be a bug."""
    corpus, selected, decided = pipeline.corpus, require_all_readable(pipeline), DecideRecord.load(pipeline.decided)
    tokenizer = open_tokenizer(pipeline.config)
    tokens = {name: _tokens(pipeline, name) for name in corpus.sources}
    return DataManifest(
        corpus=corpus.name,
        corpus_fingerprint=corpus_fingerprint(corpus),
        key=pipeline.keys["tokenize"],
        tokenizer_sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        end_of_document_id=tokenizer.end_of_document,
        dtype=tokenizer.dtype,
        sources=[_source(pipeline, name, selected[name], decided.fates[name], tokens[name]) for name in corpus.sources],
        benchmarks=decided.benchmarks,
        contamination=_contamination(decided, [record for records in tokens.values() for record in records]),
        classifiers=[_classifier(pipeline, name) for name in pipeline.learned],
        stages=[_stage(stage) for stage in pipeline.stages],
        versions=pipeline.plan.versions | {f"benchmark {name}": origin for name, origin in decided.origins.items()},
    )


def manifest_tables(manifest: DataManifest) -> Iterator[Table]:
    """Sources, stages and, where there are some, classifiers and what was looked for in training text."""
    yield _sources_table(manifest)
    if manifest.classifiers:
        yield _classifiers_table(manifest.classifiers)
    if manifest.contamination:
        yield _contamination_table(manifest.contamination)
    yield _stages_table(manifest.stages)


def _sources_table(manifest: DataManifest) -> Table:
    table = _table(f"corpus {manifest.corpus}", ("source", "group", "lang"), ("read", "train", "held out", "tokens", "held-out tokens"), ("dropped",))
    for source in manifest.sources:
        numbers = (source.documents_read, source.train.documents, source.heldout.documents)
        tokens = (count(source.train.tokens), count(source.heldout.tokens))
        table.add_row(source.name, source.group, source.language, *map(str, numbers), *tokens, reasons(source.dropped, 4) or "-")
    return table


def _classifiers_table(classifiers: Sequence[ClassifierRecord]) -> Table:
    numbers = ("learned from", "AUC", "cut", "kept of pool", "recall", "precision", "prevalence", "true recall", "true precision")
    table = _table("classifiers", ("classifier", "backend"), numbers)
    for one in classifiers:
        most = "" if one.resolved else "<= "
        truth = ("-" if value is None else f"{value:.1%}" for value in (one.true_recall, one.true_precision))
        shares = (f"{one.kept:.1%}", f"{one.recall:.1%}", f"{most}{one.precision:.1%}", f"{most}{one.prevalence:.1%}", *truth)
        table.add_row(one.name, one.backend, f"{one.positives} + {one.negatives}", f"{one.auc:.4f}", f"{one.cut:.3g}", *shares)
    return table


def _contamination_table(sets: Sequence[Contamination]) -> Table:
    table = _table("looked for in training text", ("set",), ("items", "too short", "common", "found", "documents left out"))
    for one in sets:
        table.add_row(one.name, str(one.items), str(one.too_short), str(one.common), str(one.found), str(one.documents))
    return table


def _stages_table(stages: Sequence[StageRecord]) -> Table:
    table = _table("stages", ("stage",), ("units", "time of one core", "files"))
    for stage in stages:
        table.add_row(stage.name, str(stage.units), duration(stage.seconds), size(stage.bytes))
    return table


def _table(title: str, words: Sequence[str], numbers: Sequence[str], after: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    for name in after:
        table.add_column(name)
    return table


def _tokens(pipeline: Pipeline, source: str) -> list[TokenRecord]:
    """Of the source's training shards, then of its held-out text."""
    prefixes = [pipeline.prefix(source, f"train-{shard.stem}") for shard in pipeline.shards(source)] + [pipeline.prefix(source, "heldout")]
    return [TokenRecord.load(prefix.with_name(f"{prefix.name}.json")) for prefix in prefixes]


def _source(pipeline: Pipeline, name: str, selected: SelectRecord, fates: Mapping[str, int], tokens: Sequence[TokenRecord]) -> SourceRecord:
    source = pipeline.corpus.sources[name]
    train, heldout = SplitRecord(shards=[record.shard for record in tokens[:-1]]), SplitRecord(shards=[tokens[-1].shard])
    gone = {reason: number for reason, number in fates.items() if reason not in ("train", "heldout")}
    contaminated = {"contaminated": sum(sum(record.contaminated.values()) for record in tokens), "unreadable": selected.unreadable}
    dropped = {reason: number for reason, number in (selected.dropped | gone | contaminated).items() if number}
    if selected.documents + selected.unreadable != sum(dropped.values()) + train.documents + heldout.documents:
        raise CptError(f"{name}: {selected.documents} documents were read; {train.documents} + {heldout.documents} are left, dropped {dropped}")
    if not train.tokens:
        raise UserError(
            Problem(
                where=f"corpus.sources.{name}",
                what=f"has no document left to train on; dropped {reasons(dropped)}",
                why="every one that passed the filters is a duplicate, held out, or holds what the model is measured on",
                fix=f"other text, fewer benchmarks, a higher corpus.decontaminate.min_share, or ~corpus.sources.{name}",
            )
        )
    return SourceRecord(
        name=name,
        group=source.group.value,
        language=source.language,
        license=source.license,
        origin=pipeline.origin(name),
        documents_read=selected.documents + selected.unreadable,
        bytes_read=selected.bytes,
        dropped=dropped,
        scrubbed=selected.scrubbed,
        train=train,
        heldout=heldout,
    )


def _contamination(decided: DecideRecord, tokens: Sequence[TokenRecord]) -> list[Contamination]:
    documents = merged([record.contaminated for record in tokens])
    found = {name: {item for record in tokens for item in record.items.get(name, [])} for name in decided.references}
    return [
        Contamination(
            name=name, items=items, too_short=decided.too_short[name], common=decided.common[name], found=len(found[name]), documents=documents.get(name, 0)
        )
        for name, items in decided.references.items()
    ]


def _classifier(pipeline: Pipeline, name: str) -> ClassifierRecord:
    section, learned = pipeline.corpus.classifiers[name], LearnRecord.load(pipeline.model(name))
    curve, at = read_curve(pipeline.model(name)), how_it_does(section, pipeline.model(name))
    return ClassifierRecord(
        name=name,
        backend=section.backend.value,
        positives=learned.positives,
        negatives=learned.negatives,
        auc=curve.auc,
        prevalence=curve.prevalence,
        cut=at.cut,
        kept=at.kept,
        recall=at.recall,
        precision=at.precision,
        resolved=curve.resolved,
        true_recall=at.true_recall,
        true_precision=at.true_precision,
    )


def _stage(stage: Stage) -> StageRecord:
    records = [stage.kind.load(record) for record in stage.records]
    files = [file for record in records for file in record.files.values()]
    return StageRecord(
        name=stage.name,
        units=len(records),
        seconds=sum(record.seconds for record in records),
        bytes=sum(file.bytes for file in files),
        sha256=sha256_json([file.sha256 for file in files]),
    )
