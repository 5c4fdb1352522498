"""What the next attempt of a run would start from, and whether it would go on with what was trained so far. No GPU, no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cpt.checkpoint import CheckpointStore
from cpt.checkpoint.records import CompleteRecord
from cpt.config.run import RunConfig
from cpt.config.schedule import learning_rate
from cpt.config.seal import read_config
from cpt.core import units
from cpt.core.artifacts import sha256_file
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths
from cpt.core.records import DataManifest, MixturePlan, RunRecord
from cpt.data import batch_crc32, data_fingerprint, open_manifest, open_mixture, row_checksums
from cpt.data.identity import AcceptedData, accept
from cpt.data.indexed import bin_path
from cpt.mix import plan_mixture
from cpt.tracking.journal import MetricRow, read_metrics

_HASHED = 4 << 30
"""Bytes of token files up to which a check reads them all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """`mixture` and `crc32` are None when the corpus cannot be read at all; then `problems` say why."""

    run: RunPaths
    config: RunConfig
    checkpoint: CompleteRecord | None
    """None: the run starts from the base."""
    trained: str
    """Fingerprint of what it was trained on so far; without a checkpoint, of what was planned."""
    planned: str
    """Fingerprint of the plan in the run directory, which training reads."""
    mixture: MixturePlan | None
    """As planned from the config and the corpus of now."""
    consumed: Mapping[str, int]
    """Tokens by source up to the checkpoint, as journaled."""
    crc32: int | None
    """Of the next global batch."""
    before: MetricRow | None
    """What an earlier attempt journaled of the next step, if one has done it."""
    hashed: bool
    """Whether the token files were read and are what the manifest says."""
    problems: Sequence[Problem]

    @property
    def step(self) -> int:
        """Updates done."""
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def samples(self) -> int:
        """Sequences trained on."""
        return self.checkpoint.consumed_samples if self.checkpoint else 0

    @property
    def now(self) -> str:
        """Fingerprint of what would be trained on."""
        return data_fingerprint(self.mixture, self.config) if self.mixture else ""

    @property
    def accepted(self) -> bool:
        """Other data, but a human took it."""
        return self.trained != self.now and AcceptedData.of(self.run).allows(self.trained, self.now)

    @property
    def changed(self) -> bool:
        """Training would be refused, or would read something else than config and corpus say."""
        return bool(self.now) and (self.planned != self.now or (self.trained != self.now and not self.accepted))


def examine(run: RunPaths) -> Resume:
    """Read the newest checkpoint, the corpus and the journal. Raises `CptError` when the checkpoint is damaged, `UserError` when this is no run."""
    config, record = read_config(run.config), RunRecord.load(run.run)
    store = CheckpointStore(run.checkpoints)
    newest = store.latest()
    checkpoint = store.record(newest) if newest is not None else None
    if checkpoint:
        store.check(checkpoint.step)
    planned = data_fingerprint(record.mixture, config)
    step, rows = checkpoint.step if checkpoint else 0, read_metrics(run)
    found = Resume(
        run=run,
        config=config,
        checkpoint=checkpoint,
        trained=checkpoint.data if checkpoint else planned,
        planned=planned,
        mixture=None,
        consumed=_consumed(rows, step),
        crc32=None,
        before=_at_step(rows, step + 1),
        hashed=False,
        problems=(),
    )
    try:
        return _with_corpus(found)
    except UserError as error:
        return dataclasses.replace(found, problems=error.problems)


def _with_corpus(found: Resume) -> Resume:
    """Plan and next batch from the data that lies there now. Raises `UserError` when it cannot be read."""
    config, size = found.config, found.config.train.global_batch_size
    manifest = open_manifest(config)
    mixture = plan_mixture(config.mixture, manifest, config.train.train_tokens, config.train.sequence_length)
    data = open_mixture(config, manifest, mixture)
    crc32 = batch_crc32(row_checksums(data.batch(found.samples, found.samples + size).tokens)) if found.step < config.train.steps else None
    found = dataclasses.replace(found, mixture=mixture, crc32=crc32)
    changed, hashed = _changed_files(config, manifest)
    return dataclasses.replace(found, hashed=hashed, problems=[*_other_data(found), *_other_batch(found), *changed])


def accept_change(found: Resume) -> None:
    """Let the run go on with the data of now: its plan is made anew, and the change is written down."""
    if found.mixture is None or not found.changed:
        return
    if found.trained != found.now and not found.accepted:
        accept(found.run, found.step, found.trained, found.now)
    dataclasses.replace(RunRecord.load(found.run.run), mixture=found.mixture).save(found.run.run)


def page(found: Resume) -> RenderableType:
    """For a terminal."""
    rows = Table.grid(padding=(0, 2))
    for name, value in _rows(found):
        rows.add_row(Text(name, style="dim"), value)
    blocks: list[RenderableType] = [Text(found.run.root.name, style="bold"), rows]
    if found.mixture:
        blocks += [Text(), _ledger(found)]
    return Group(*blocks)


def _rows(found: Resume) -> Iterator[tuple[str, str]]:
    config, checkpoint = found.config, found.checkpoint
    if checkpoint:
        where = f"step_{checkpoint.step:08d}, complete: {len(checkpoint.files)} files, {units.size(checkpoint.bytes)}, written by {checkpoint.layout}"
        yield "checkpoint", where
    else:
        yield "checkpoint", "none: starts from the base"
    if found.step >= config.train.steps:
        yield "next", f"nothing: all {config.train.steps:,} steps are done"
    else:
        rate = learning_rate(found.step, config.train.steps, config.peak_lr, config.schedule)
        yield "next", f"step {found.step + 1:,} of {config.train.steps:,}, learning rate {rate:.4g}"
    yield "trained on", f"{found.samples:,} sequences, {units.count(found.samples * config.train.sequence_length)} tokens"
    if found.mixture:
        yield "mixture", f"{found.now[:10]}: {_verdict(found)}"
        yield "corpus", "every token file has the hash of the manifest" if found.hashed else "sizes checked; too large to hash here"
    if found.crc32 is not None:
        yield "next batch", f"CRC-32 {found.crc32}, {_seen(found)}"


def _verdict(found: Resume) -> str:
    if found.trained == found.now:
        return "the same as trained so far" if found.checkpoint else "as planned"
    return f"other than trained so far ({found.trained[:10]})" + (", accepted" if found.accepted else "")


def _seen(found: Resume) -> str:
    if found.before is None:
        return "not read before"
    crc32 = int(found.before.values["data/batch_crc32"])
    return f"as attempt {found.before.attempt} read it" if crc32 == found.crc32 else f"attempt {found.before.attempt} read {crc32}"


def _ledger(found: Resume) -> Table:
    """Tokens by source so far, and the shares that are planned."""
    table = Table("source", "tokens so far", "share", "planned", "epochs so far", box=None, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    assert found.mixture
    total = sum(found.consumed.values())
    for share in found.mixture.shares:
        tokens = found.consumed.get(share.name, 0)
        epochs = f"{tokens / max(1, share.available_tokens):.2f}"
        table.add_row(share.name, f"{tokens:,}", f"{tokens / total:.2%}" if total else "", f"{share.weight:.2%}", epochs)
    return table


def _at_step(rows: Sequence[MetricRow], step: int) -> MetricRow | None:
    """Of the last attempt that did this step."""
    return next((row for row in reversed(rows) if row.step == step and "data/batch_crc32" in row.values), None)


def _consumed(rows: Sequence[MetricRow], step: int) -> dict[str, int]:
    """Tokens by source that the journal counted up to the checkpoint."""
    row, prefix = _at_step(rows, step), "data/tokens/"
    return {name.removeprefix(prefix): int(tokens) for name, tokens in row.values.items() if name.startswith(prefix)} if row else {}


def _other_data(found: Resume) -> Iterator[Problem]:
    if not found.changed:
        return
    other = found.trained != found.now and found.checkpoint is not None
    yield Problem(
        where=f"checkpoint of step {found.step}" if other else str(found.run.run),
        what=f"{'was trained on' if other else 'plans'} mixture and data {(found.trained if other else found.planned)[:10]}; now they are {found.now[:10]}",
        why="the samples that follow would not be those that were not read yet",
        fix=f"put {found.run.config} and the corpus back; or cpt resume {found.run.root} --accept-changed-data",
    )


def _other_batch(found: Resume) -> Iterator[Problem]:
    """The mixture is the same, but its bytes are not."""
    if found.trained != found.now or found.before is None or int(found.before.values["data/batch_crc32"]) == found.crc32:
        return
    yield Problem(
        where=f"step {found.step + 1}",
        what=f"would read a batch with CRC-32 {found.crc32}; {_seen(found)}",
        why="the token files have changed though their manifest has not",
        fix="restore the corpus from where it was prepared",
    )


def _changed_files(config: RunConfig, manifest: DataManifest) -> tuple[list[Problem], bool]:
    """Token files that are not what the manifest says, and whether they were small enough to look."""
    root = config.runs.data(config.corpus.name).root
    splits = [(bin_path(root / split.prefix), split.sha256) for source in manifest.sources for split in (source.train, source.heldout)]
    if sum(path.stat().st_size for path, _ in splits) > _HASHED:
        return [], False
    why, fix = "its manifest was made for other bytes", "restore the corpus, or cpt prepare again and --accept-changed-data"
    changed = [path for path, sha256 in splits if sha256_file(path) != sha256]
    return [Problem(where=str(path), what="has changed on disk", why=why, fix=fix) for path in changed], True
