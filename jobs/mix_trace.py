"""One sample of a run, back to the documents and files that it was read from."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from cpt.core.errors import EXIT_DONE, Problem, UserError
from cpt.data import open_manifest, open_mixture
from cpt.data.indexed import bin_path
from cpt.data.position import consumed_before, next_sample
from cpt.data.provenance import Piece, Trace, trace
from jobs.mix_reading import Reading


def trace_sample(console: Console, found: Reading, place: str) -> int:
    """`place`: SAMPLE or SAMPLE:TOKEN; each document of the sample with its tokens, or the one that has the token. Always 0."""
    sample, token = parse_place(place, found)
    data = open_mixture(found.config, open_manifest(found.config), found.segments)
    traced = trace(data, sample)
    console.print(f"{found.name}, sample {sample:,}: {traced.source}, window {traced.window:,} of its epoch {traced.epoch + 1:,}; {_trained(found, sample)}")
    pieces = [piece for piece in traced.pieces if token is None or token in piece.row]
    console.print(_table(found, pieces))
    if token is not None:
        console.print(_at(traced, pieces[0], token, int(data.batch(sample, sample + 1).tokens[0, token])))
    return EXIT_DONE


def parse_place(place: str, found: Reading) -> tuple[int, int | None]:
    """Raises `UserError` when it is no number of a sample of the run, or no token of it."""
    number, _, token = place.replace(",", "").partition(":")
    samples, length = next_sample(found.config.train.samples, found.skipped), found.config.train.sequence_length
    if not number.isdecimal() or int(number) >= samples:
        why = f"samples of this run are numbered from 0 to {samples - 1:,}"
        raise UserError(Problem(where="SAMPLE", what=f"is {place}", why=why, fix="SAMPLE or SAMPLE:TOKEN, as in events of the journal"))
    if token and not (token.isdecimal() and int(token) <= length):
        why = f"a sample has the tokens 0 to {length:,}; the last one is only a target"
        raise UserError(Problem(where="TOKEN", what=f"is {token}", why=why, fix=f"{number}:<0 to {length}>"))
    return int(number), int(token) if token else None


def _trained(found: Reading, sample: int) -> str:
    before = consumed_before(sample, found.skipped)
    if before is None:
        return "never trained on: it is in a window that was skipped"
    step, row = divmod(before, found.config.train.global_batch_size)
    return f"row {row:,} of step {step + 1:,}"


def _table(found: Reading, pieces: list[Piece]) -> Table:
    root = found.config.runs.data(found.config.corpus.name).root
    table = Table("tokens of the sample", "document", "its tokens", "file", "document there", "tokens there", box=None)
    for piece in pieces:
        file = bin_path(piece.prefix).relative_to(root)
        there = f"{piece.token:,} to {piece.token + len(piece.row) - 1:,}"
        table.add_row(_span(piece.row), piece.document, f"{_span(piece.within)} of {piece.length:,}", str(file), f"{piece.number:,}", there)
    return table


def _span(tokens: range) -> str:
    return f"{tokens.start:,} to {tokens.stop - 1:,}"


def _at(traced: Trace, piece: Piece, token: int, id: int) -> str:
    step = token - piece.row.start
    place = f"token {piece.within.start + step:,} of document {piece.document}, token {piece.token + step:,} of {bin_path(piece.prefix)}"
    return f"token {token:,} of the sample, id {id}, is {place} ({traced.source})"
