"""Mixtures for a terminal: one of them source by source, or two side by side."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from cpt.config.amend import changes
from cpt.config.data import OnCap
from cpt.core import units
from cpt.core.amendments import Segment
from cpt.core.errors import EXIT_DONE
from cpt.core.records import SourceShare
from cpt.data import data_fingerprint
from cpt.mix import PARTS, part_of
from jobs.mix_reading import Reading
from jobs.resume_page import amendment_line

_NEAR = 0.9
"""Of its cap: from here on a source has a hint."""

_DECIDES = ("mixture.", "corpus.", "seed", "train.train_tokens", "train.sequence_length", "train.global_batch_size")
"""Settings that decide what is read, and when."""


def show(console: Console, found: Reading) -> int:
    """A table for each segment of the run, and a hint for each source near its cap. Always 0."""
    train = found.config.train
    console.print(f"{found.name}: {units.count(train.train_tokens)} tokens, {train.samples:,} samples of {train.sequence_length:,}, corpus {_corpus(found)}")
    for amendment in found.amendments:
        console.print(f"amended {amendment_line(amendment)}")
    for segment in found.segments:
        console.print(_table(segment, f"from sample {segment.start:,} on" if len(found.segments) > 1 else ""))
    for line in hints(found):
        console.print(line)
    return EXIT_DONE


def hints(found: Reading) -> Iterator[str]:
    """About sources near or at their cap, as the run ends."""
    redistributes = found.config.mixture.on_cap is OnCap.redistribute
    for share in found.mixture.shares:
        if share.weight > 0 and share.epochs >= _NEAR * share.epoch_cap:
            setting = f"mixture.epoch_caps.{share.name}" if share.name in found.config.mixture.epoch_caps else "mixture.max_epochs"
            left = max(0, int(share.epoch_cap * share.epoch_tokens) - share.planned_tokens)
            then = (
                "the rest of its part goes to the others"
                if redistributes
                else "beyond that the mixture is refused; mixture.on_cap=redistribute gives it to others"
            )
            yield f"hint: {share.name} is read {share.epochs:.3g} times of {share.epoch_cap:g} ({setting}): {units.count(left)} tokens are left, {then}"


def diff(console: Console, one: Reading, other: Reading) -> int:
    """Settings, shares and data in which two differ, as both end. Always 0."""
    console.print(f"A  {one.name}\nB  {other.name}\n")
    for change in changes(one.config, other.config):
        if change.key.startswith(_DECIDES):
            console.print(f"{change.key}: {_plain(change.old)} -> {_plain(change.new)}")
    console.print(_comparison(one, other))
    console.print(_data(one, other))
    console.print(_order(one, other))
    return EXIT_DONE


def _corpus(found: Reading) -> str:
    return f"{found.config.corpus.name} ({found.mixture.data_hash[:10]})"


def _table(segment: Segment, title: str) -> Table:
    table = Table("source", "group", "language", "weight", "planned tokens", "epochs", "cap", "available", title=title or None, title_justify="left", box=None)
    for column in table.columns[3:]:
        column.justify = "right"
    for part in PARTS:
        shares = [share for share in segment.mixture.shares if part_of(share.group, share.language) == part]
        for share in shares:
            epochs = f"{share.epochs:.2f}" if share.weight > 0 else "left out"
            table.add_row(share.name, share.group, share.language, *_sums([share]), epochs, f"{share.epoch_cap:g}", f"{share.available_tokens:,}")
        if shares:
            table.add_row(f"= {part}", "", "", *_sums(shares), "", "", f"{sum(share.available_tokens for share in shares):,}", style="bold", end_section=True)
    return table


def _sums(shares: list[SourceShare]) -> tuple[str, str]:
    return f"{sum(share.weight for share in shares):.2%}", f"{sum(share.planned_tokens for share in shares):,}"


def _comparison(one: Reading, other: Reading) -> Table:
    table = Table("source", "weight A", "weight B", "change", "tokens A", "tokens B", "epochs A", "epochs B", "tokens are", box=None)
    for column in table.columns[1:8]:
        column.justify = "right"
    left, right = ({share.name: share for share in side.mixture.shares} for side in (one, other))
    for name in dict.fromkeys((*left, *right)):
        a, b = left.get(name), right.get(name)
        weights = [share.weight if share else 0.0 for share in (a, b)]
        change = f"{weights[1] - weights[0]:+.2%}" if weights[0] != weights[1] else ""
        tokens = [f"{share.planned_tokens:,}" if share else "" for share in (a, b)]
        epochs = [f"{share.epochs:.2f}" if share else "" for share in (a, b)]
        table.add_row(name, f"{weights[0]:.2%}", f"{weights[1]:.2%}", change, *tokens, *epochs, _same(a, b), style="" if change else "dim")
    return table


def _same(one: SourceShare | None, other: SourceShare | None) -> str:
    if not one or not other:
        return "only in A" if one else "only in B"
    return "the same" if one.sha256 == other.sha256 else "others"


def _data(one: Reading, other: Reading) -> str:
    if one.mixture.data_hash == other.mixture.data_hash:
        return f"data: the same, {_corpus(one)}"
    left, right = ({share.name: share.sha256 for share in side.mixture.shares} for side in (one, other))
    differing = [name for name in dict.fromkeys((*left, *right)) if left.get(name) != right.get(name)]
    what = f"tokens of {', '.join(differing)}" if differing else "the tokenizer or held-out text only"
    return f"data: differs, {_corpus(one)} and {_corpus(other)}: {what}"


def _order(one: Reading, other: Reading) -> str:
    """Whether the same samples come in the same order."""
    samples = min(one.config.train.samples, other.config.train.samples)
    if data_fingerprint(one.segments, one.config, samples) != data_fingerprint(other.segments, other.config, samples):
        return "order: other samples, or in another order"
    return f"order: the same samples, one by one{'' if one.config.train.samples == other.config.train.samples else f', for the first {samples:,}'}"


def _plain(value: object) -> str:
    return "not set" if value is None else str(value)
