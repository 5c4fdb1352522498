"""Shards: every line of every file in just one of them, whoever plans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpt.config.data import SourceConfig
from cpt.core.errors import UserError
from cpt.corpus.documents import Document
from cpt.corpus.formats import Bad
from cpt.corpus.inputs import plan_shards, require_unchanged
from cpt.corpus.readers import read_piece


def read(paths: list[Path], shard_bytes: int, most: int = 1000) -> list[Document | Bad]:
    source, shards = SourceConfig(), plan_shards({"own": [str(path) for path in paths]}, shard_bytes)
    return [found for shard in shards for piece in shard.pieces for found in read_piece(piece, source, most)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="aé\n ", max_size=40), max_size=12), st.integers(1, 120), st.booleans(), st.booleans())
def test_a_cut_file_gives_each_line_once_and_in_order(tmp_path: Path, texts: list[str], shard_bytes: int, ended: bool, crlf: bool) -> None:
    rows = [json.dumps({"id": str(number), "text": f"x{text}"}) for number, text in enumerate(texts)]
    path = tmp_path / "a.jsonl"
    path.write_bytes((("\r\n" if crlf else "\n").join(rows) + "\n" * ended).encode())
    found = [one for one in read([path], shard_bytes) if isinstance(one, Document)]
    assert [(one.id, one.text) for one in found] == [(str(number), f"x{text}") for number, text in enumerate(texts)]


def test_a_line_of_a_later_piece_says_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' * 4 + "{\n")
    found = read([tmp_path / "a.jsonl"], 40)
    names = [one.where if isinstance(one, Bad) else one.id for one in found]
    assert names == [f"{tmp_path}/a.jsonl{where}" for where in (":1", ":2", ":3", ":33+1", ":33+2")]
    assert len(set(names)) == len(names)


def test_a_line_that_is_too_long_fills_no_memory_and_costs_no_other(tmp_path: Path) -> None:
    long = b'{"text": "' + b"x" * 3_000_000 + b'"}\n'
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' + long + b'{"text": "two"}\n')
    first, bad, last = read([tmp_path / "a.jsonl"], 1 << 30)
    assert isinstance(first, Document) and isinstance(last, Document) and last.text == "two"
    assert isinstance(bad, Bad) and bad.what == f"holds {len(long)} bytes; corpus.max_document_bytes is 1000"


def test_small_files_share_a_shard_and_no_shard_has_two_sources(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.jsonl").write_bytes(b"x" * 10)
    first, second = [f"{tmp_path}/[0-2].jsonl"], [f"{tmp_path}/[3-5].jsonl"]
    shards = plan_shards({"a": first, "b": second}, 25)
    assert [(shard.number, shard.source, shard.index, len(shard.pieces)) for shard in shards] == [
        (0, "a", 0, 2),
        (1, "a", 1, 1),
        (2, "b", 0, 2),
        (3, "b", 1, 1),
    ]
    assert shards == plan_shards({"a": first, "b": second}, 25)


@pytest.mark.parametrize("change", ["gone", "longer", "touched"])
def test_a_file_that_is_not_as_it_was_planned_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n")
    ((piece,),) = (shard.pieces for shard in plan_shards({"a": [str(path)]}, 100))
    require_unchanged(piece)
    match change:
        case "gone":
            path.unlink()
        case "longer":
            path.write_bytes(b"{}\n{}\n")
        case "touched":
            path.touch()
    with pytest.raises(UserError, match=r"is gone|has \d+ bytes and another time"):
        require_unchanged(piece)
