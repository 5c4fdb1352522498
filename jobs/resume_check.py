"""What the next attempt of a run would start from, and whether it would go on with what was trained so far. No GPU, no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cpt.checkpoint import CheckpointStore
from cpt.checkpoint.records import CompleteRecord
from cpt.config.history import History, read_history
from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.amendments import Segment, segments
from cpt.core.artifacts import sha256_file
from cpt.core.errors import Problem, UserError
from cpt.core.manifest import DataManifest
from cpt.core.paths import RunPaths
from cpt.core.records import DataPosition, MixturePlan, RunRecord
from cpt.data import MixtureDataset, batch_crc32, data_fingerprint, open_manifest, open_mixture, require_same_data, row_checksums
from cpt.data.indexed import bin_path
from cpt.data.position import spans
from cpt.mix import plan_mixture
from cpt.tracking.journal import MetricRow, read_metrics

_HASHED = 4 << 30
"""Bytes of token files up to which a check reads them all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """Where a run stands, and with what it would go on; `problems` say why it would not."""

    run: RunPaths
    config: RunConfig
    history: History
    checkpoint: CompleteRecord | None
    """None: the run starts from the base."""
    launched: MixturePlan
    crc32: int | None = None
    """Of the next global batch; None when it cannot be read, or all steps are done."""
    before: MetricRow | None
    """What an earlier attempt journaled of the next step, if one has done it."""
    hashed: bool = False
    """Whether the token files were read and are what the manifest says."""
    problems: Sequence[Problem] = ()

    @property
    def step(self) -> int:
        """Updates done."""
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def samples(self) -> int:
        """Sequences trained on."""
        return self.checkpoint.consumed_samples if self.checkpoint else 0

    @property
    def skipped(self) -> list[list[int]]:
        """Windows of samples that are never trained on."""
        return self.checkpoint.train["skipped"] if self.checkpoint else []

    @property
    def position(self) -> DataPosition:
        """Where the checkpoint stands in the data."""
        return self.checkpoint.data if self.checkpoint else DataPosition(fingerprint=self.now, next_sample=0, tokens={})

    @property
    def segments(self) -> list[Segment]:
        """What the run reads, from its first sample on."""
        return segments(self.launched, self.history.amendments)

    @property
    def mixture(self) -> MixturePlan:
        """From here on, unless an amendment is still to come."""
        return self.segments[-1].mixture

    @property
    def amended_here(self) -> bool:
        """Whether the next batch may be another than the one that an earlier attempt read."""
        return any(amendment.sample >= self.position.next_sample for amendment in self.history.amendments)

    @property
    def now(self) -> str:
        """Fingerprint of what the run says it has read until here."""
        return data_fingerprint(self.segments, self.config, self.checkpoint.data.next_sample if self.checkpoint else 0)


def examine(run: RunPaths) -> Resume:
    """Read the newest checkpoint, the corpus and the journal. Raises `CptError` when the checkpoint is damaged, `UserError` when this is no run."""
    store = CheckpointStore(run.checkpoints)
    newest = store.latest()
    checkpoint = store.record(newest) if newest is not None else None
    if checkpoint:
        store.check(checkpoint.step)
    found = Resume(
        run=run,
        config=read_config(run.config),
        history=read_history(run),
        checkpoint=checkpoint,
        launched=RunRecord.load(run.run).mixture,
        before=_at_step(read_metrics(run), (newest or 0) + 1),
    )
    return with_corpus(found)


def with_corpus(found: Resume) -> Resume:
    """With the next batch, read from the data that lies there now, and everything that speaks against it."""
    try:
        manifest = open_manifest(found.config)
        changed, hashed = _changed_files(found.config, manifest)
        found = dataclasses.replace(found, hashed=hashed, problems=[*_edited(found, manifest), *changed])
        data = open_mixture(found.config, manifest, found.segments)
        data.require_readable(found.position.next_sample)
        if found.checkpoint:
            require_same_data(found.run, found.step, found.position, data.position(found.samples, found.skipped))
        found = dataclasses.replace(found, crc32=_next_batch(found, data))
        return dataclasses.replace(found, problems=[*found.problems, *_other_batch(found)])
    except UserError as error:
        return dataclasses.replace(found, problems=[*found.problems, *error.problems])


def _next_batch(found: Resume, data: MixtureDataset) -> int | None:
    if found.step >= found.config.train.steps:
        return None
    numbers = spans(found.samples, found.config.train.global_batch_size, found.skipped)
    return batch_crc32(np.concatenate([row_checksums(data.batch(span.start, span.stop).tokens) for span in numbers]))


def seen(found: Resume) -> str:
    """Whether the next batch was read before, and by whom."""
    if found.before is None:
        return "not read before"
    crc32 = int(found.before.values["data/batch_crc32"])
    if crc32 == found.crc32:
        return f"as attempt {found.before.attempt} read it"
    return f"attempt {found.before.attempt} read {crc32}" + ", before this was amended" * found.amended_here


def _at_step(rows: Sequence[MetricRow], step: int) -> MetricRow | None:
    """Of the last attempt that did this step."""
    return next((row for row in reversed(rows) if row.step == step and "data/batch_crc32" in row.values), None)


def _edited(found: Resume, manifest: DataManifest) -> Iterator[Problem]:
    """A config that was edited by hand says another mixture than the one planned: training would read the plan."""
    last = found.history.amendments[-1] if found.history.amendments else None
    train = found.config.train
    again = plan_mixture(found.config.mixture, manifest, train.train_tokens, train.sequence_length, last.tokens if last else None)
    if again.weights != found.mixture.weights:
        yield Problem(
            where=str(found.run.config),
            what="says another mixture than was planned from it",
            why="the plan is what training reads",
            fix=f"put {found.run.config.name} back; then cpt resume {found.run.root} mixture.<key>=<value>",
        )


def _other_batch(found: Resume) -> Iterator[Problem]:
    """The mixture is the same, but its bytes are not."""
    if found.amended_here or found.crc32 is None or found.before is None or int(found.before.values["data/batch_crc32"]) == found.crc32:
        return
    yield Problem(
        where=f"step {found.step + 1}",
        what=f"would read a batch with CRC-32 {found.crc32}; {seen(found)}",
        why="the token files have changed though their manifest has not",
        fix="restore the corpus from where it was prepared",
    )


def _changed_files(config: RunConfig, manifest: DataManifest) -> tuple[list[Problem], bool]:
    """Token files that are not what the manifest says, and whether they were small enough to look."""
    root = config.runs.data(config.corpus.name).root
    shards = [shard for source in manifest.sources for split in (source.train, source.heldout) for shard in split.shards]
    files = [(bin_path(root / shard.prefix), shard.sha256) for shard in shards]
    if sum(path.stat().st_size for path, _ in files) > _HASHED:
        return [], False
    why, fix = "its manifest was made for other bytes", "restore the corpus, or cpt prepare again and --accept-changed-data"
    changed = [path for path, sha256 in files if sha256_file(path) != sha256]
    return [Problem(where=str(path), what="has changed on disk", why=why, fix=fix) for path in changed], True
