"""From a sample of a run back to the text: which documents it holds, by their ids, and where in which token file they lie."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cpt.core.errors import MissingInput, Problem, UserError
from cpt.data.indexed import IndexedTokens, ids_path
from cpt.data.mixture import MixtureDataset


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What one document gives to a sample."""

    row: range
    """Places in the sample, of 0 to `sequence_length`: the last one is only a target."""
    document: str
    """Its id."""
    prefix: Path
    number: int
    """Of the document in its shard."""
    token: int
    """Number of the piece's first token in the shard's `.bin`."""
    within: range
    """Its tokens, counted from the document's first."""
    length: int
    """Tokens of the whole document, its end included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Where one sample comes from. `window` is the number of the sample in its source's `epoch`, both from 0."""

    source: str
    epoch: int
    window: int
    pieces: list[Piece]


def trace(data: MixtureDataset, sample: int) -> Trace:
    """Of sample `sample` of the run. Raises `UserError` when its tokens are gone, or files of ids are missing or cut."""
    stream, number = data.locate(sample)
    pieces, start = [], 0
    for document, first, last in stream.pieces(number):
        pieces.append(_piece(stream.tokens, document, range(first, last), start))
        start += last - first
    epoch, window = divmod(number, stream.samples_per_epoch)
    return Trace(source=stream.name, epoch=epoch, window=window, pieces=pieces)


def document_id(tokens: IndexedTokens, index: int) -> str:
    """Id of document `index` of a split, as its `.ids` file has it. Raises `UserError` when that is missing or too short."""
    place = tokens.locate(index)
    path = ids_path(place.prefix)
    if not path.is_file():
        raise MissingInput(path=path, why="it names the documents of the token file beside it", fix="cpt mix verify, then cpt prepare")
    with open(path, encoding="utf-8") as lines:
        line = next(islice(lines, place.document, None), "")
    try:
        return str(json.loads(line))
    except ValueError:
        what = f"has no id for document {place.document}"
        raise UserError(Problem(where=str(path), what=what, why="it was cut or changed", fix="cpt mix verify, then cpt prepare")) from None


def _piece(tokens: IndexedTokens, document: int, read: range, start: int) -> Piece:
    """`read`: tokens of the whole split; `start`: where they stand in the sample."""
    place, begin = tokens.locate(document), int(tokens.offsets[document])
    within = range(read.start - begin, read.stop - begin)
    return Piece(
        row=range(start, start + len(read)),
        document=document_id(tokens, document),
        prefix=place.prefix,
        number=place.document,
        token=place.token + within.start,
        within=within,
        length=int(tokens.offsets[document + 1]) - begin,
    )
