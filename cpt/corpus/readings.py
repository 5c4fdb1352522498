"""What the shards of a source say together: counts, examples, and whether too much of it cannot be read."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cpt.core.errors import CptError
from cpt.corpus.formats import Bad
from cpt.corpus.pipeline import Pipeline
from cpt.corpus.stages.records import Example, SelectRecord, merged
from cpt.corpus.stages.select import NAMED, SHOWN, Selected, require_readable


def require_all_readable(pipeline: Pipeline) -> dict[str, SelectRecord]:
    """Source -> the sums of its shards. Raises `UserError` for one with more bad input than it may have."""
    found = {}
    for name in pipeline.corpus.sources:
        selected = [pipeline.selected(shard) for shard in pipeline.shards(name)]
        found[name] = total(name, [SelectRecord.load(one.record) for one in selected])
        bad = [one for each in selected for one in read_bad(each)][:NAMED]
        require_readable(name, bad, found[name].unreadable, found[name].documents, pipeline.corpus)
    return found


def read_bad(selected: Selected) -> list[Bad]:
    """Records of one shard that cannot be read."""
    return [Bad(**json.loads(line)) for line in selected.bad.read_text().splitlines()] if selected.bad.is_file() else []


def total(name: str, records: Sequence[SelectRecord]) -> SelectRecord:
    """Sums over a source's shards. Raises `CptError` when documents were lost on the way, which would be a bug."""
    found = SelectRecord(
        files={},
        seconds=sum(record.seconds for record in records),
        documents=sum(record.documents for record in records),
        bytes=sum(record.bytes for record in records),
        unreadable=sum(record.unreadable for record in records),
        kept=sum(record.kept for record in records),
        kept_bytes=sum(record.kept_bytes for record in records),
        dropped=merged([record.dropped for record in records]),
        dropped_bytes=merged([record.dropped_bytes for record in records]),
        scrubbed=merged([record.scrubbed for record in records]),
        lengths=merged([record.lengths for record in records]),
        examples=_examples([record.examples for record in records]),
    )
    if found.documents != found.kept + sum(found.dropped.values()):
        raise CptError(f"{name}: {found.documents} documents were read, {found.kept} kept and {sum(found.dropped.values())} dropped")
    return found


def _examples(records: Sequence[dict[str, list[Example]]]) -> dict[str, list[Example]]:
    """Of each reason those with the smallest draws."""
    reasons = sorted({reason for record in records for reason in record})
    together = {reason: [example for record in records for example in record.get(reason, [])] for reason in reasons}
    return {reason: sorted(examples, key=lambda example: example.draw)[:SHOWN] for reason, examples in together.items()}
