"""What there is to look at in a prepared corpus, beside its counts: documents that each step kept and dropped, lengths, pairs, curves."""

from __future__ import annotations

from dataclasses import dataclass

from cpt.core.artifacts import Artifact
from cpt.corpus.cut import Curve
from cpt.corpus.pipeline import Pipeline
from cpt.corpus.readings import require_all_readable
from cpt.corpus.stages.learn import Judged, read_curve, read_judged
from cpt.corpus.stages.records import Contaminated, DecideRecord, Example, Pair, TokenRecord

_CONTAMINATED = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInspection(Artifact):
    """One source, after the filters."""

    lengths: dict[str, int]
    """Binary logarithm of a document's bytes, rounded down -> documents."""
    examples: dict[str, list[Example]]
    """Reason, or `kept`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection(Artifact):
    """`inspection.json`: examples are those that drew the smallest numbers, the same ones each time."""

    sources: dict[str, SourceInspection]
    clusters: dict[str, int]
    """Documents in a cluster of duplicates -> clusters."""
    pairs: list[Pair]
    contaminated: list[Contaminated]
    curves: dict[str, Curve]
    """Classifier -> how it does at every cut."""
    at_the_cut: dict[str, list[Judged]]
    """Source -> documents right above and right below it."""


def inspect(pipeline: Pipeline) -> Inspection:
    """From the records of all units."""
    decided, selected = DecideRecord.load(pipeline.decided), require_all_readable(pipeline)
    prefixes = [pipeline.prefix(shard.source, f"train-{shard.stem}") for shard in pipeline.plan.shards]
    contaminated = [example for prefix in prefixes for example in TokenRecord.load(prefix.with_name(f"{prefix.name}.json")).examples]
    return Inspection(
        sources={name: SourceInspection(lengths=record.lengths, examples=record.examples) for name, record in selected.items()},
        clusters=decided.clusters,
        pairs=decided.pairs,
        contaminated=sorted(contaminated, key=lambda example: example.draw)[:_CONTAMINATED],
        curves={name: read_curve(pipeline.model(name)) for name in pipeline.learned},
        at_the_cut={name: _at_the_cut(pipeline, name, decided.cuts[name]) for name in pipeline.judged},
    )


def _at_the_cut(pipeline: Pipeline, source: str, cut: float) -> list[Judged]:
    shards = pipeline.shards(source)[:8]  # a look, not a count
    return read_judged([(pipeline.selected(shard), pipeline.scores(shard)) for shard in shards], cut)
