"""What a run would go on from, as a page for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cpt.core import units
from cpt.core.amendments import Amendment
from cpt.data.position import passed
from jobs.resume_check import Resume, seen
from slurm.attempts import last_fast_step


def page(found: Resume) -> RenderableType:
    """For a terminal."""
    rows = Table.grid(padding=(0, 2))
    for name, value in _rows(found):
        rows.add_row(Text(name, style="dim"), value)
    return Group(Text(found.run.root.name, style="bold"), rows, Text(), _ledger(found))


def _rows(found: Resume) -> Iterator[tuple[str, str]]:
    config, checkpoint = found.config, found.checkpoint
    if checkpoint:
        where = f"step_{checkpoint.step:08d}, complete: {len(checkpoint.files)} files, {units.size(checkpoint.bytes)}, written by {checkpoint.layout}"
        yield "checkpoint", where
    else:
        yield "checkpoint", "none: starts from the base"
    if (fast := last_fast_step(found.run)) > found.step:
        yield "fast checkpoint", f"step {fast:,} on the nodes' own disks: taken instead if it can be put together there and no setting is changed now"
    if found.step >= config.train.steps:
        yield "next", f"nothing: all {config.train.steps:,} steps are done"
    else:
        yield "next", f"step {found.step + 1:,} of {config.train.steps:,}, learning rate {found.history.rate(found.step):.4g}"
    yield "trained on", f"{found.samples:,} sequences, {units.count(found.samples * config.train.sequence_length)} tokens"
    if found.skipped:
        yield "skipped", ", ".join(f"samples {window.start:,} to {window.stop - 1:,}" for window in passed(found.position.next_sample, found.skipped))
    for amendment in found.history.amendments:
        yield "amended", amendment_line(amendment)
    yield "mixture", f"{found.position.fingerprint[:10]}: {_verdict(found)}"
    if found.crc32 is not None:
        yield "corpus", "every token file has the hash of the manifest" if found.hashed else "sizes checked; too large to hash here"
        yield "next batch", f"CRC-32 {found.crc32}, {seen(found)}"


def amendment_line(amendment: Amendment) -> str:
    """Where it takes hold, and what it changes."""
    changed = [str(change) for change in amendment.changes] + [f"other tokens of {name}, accepted" for name in amendment.accepted]
    return f"from step {amendment.step + 1:,} (sample {amendment.sample:,}) on: {', '.join(changed)}"


def _verdict(found: Resume) -> str:
    if found.now != found.position.fingerprint:
        return f"other than trained so far ({found.now[:10]})"
    if not found.checkpoint:
        return "as planned"
    return "the same as trained so far" if found.segments[-1].start < found.position.next_sample else "trained so far; amended from here on"


def _ledger(found: Resume) -> Table:
    """Tokens by source so far, as the checkpoint counts them, and the shares from here on."""
    table = Table("source", "tokens so far", "share", "from here on", "epochs so far", "planned", box=None, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    consumed = found.position.tokens
    shares = {share.name: share for segment in found.segments for share in segment.mixture.shares}
    weights, total = found.mixture.weights, sum(consumed.values())
    for name, share in shares.items():
        tokens = consumed.get(name, 0)
        epochs = f"{tokens / max(1, share.epoch_tokens):.2f}"
        table.add_row(name, f"{tokens:,}", f"{tokens / total:.2%}" if total else "", f"{weights.get(name, 0.0):.2%}", epochs, f"{share.epochs:.2f}")
    return table
