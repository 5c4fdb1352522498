"""What `cpt prepare` shows: a look at some documents, and how far it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from cpt.corpus.work import Progress
from jobs.cli import main
from jobs.prepare_page import Watcher, describe
from jobs.prepare_submit import ChainRecord
from tests.corpora import VOCABULARY, root, tokenizer_file
from tests.corpus.own import GONE, sample, texts, write_jsonl, write_rows

__all__ = ["root", "tokenizer_file"]


def test_a_look_says_what_becomes_of_each_document_and_makes_nothing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = " ".join(sample("novels")[1]["text"].split()[5:200])
    lorem = {"id": "lorem", "text": f"{good} Lorem ipsum dolor sit amet."}
    short = {"id": "short", "text": "She went to the house and he was there with the dog."}
    rows = [{"id": "good", "text": f"{good}\nPlease write to jo@shop.example.com if you like it."}, lorem, short, {"body": 1}]
    first = write_rows(tmp_path / "a.jsonl", rows)
    own = [f"corpus.sources.{name}.paths=['{first}']" for name in ("listings", "novels")] + [
        f"corpus.sources.{name}.filters=web" for name in ("listings", "novels")
    ]
    settings = ["corpus=sample", "model=tiny", f"model.vocab_size={VOCABULARY}", f"run_root={root}", *own, *GONE, "~corpus.sources.novels"]
    assert main(["prepare", "--sample", "20", *settings]) == 0
    out = capsys.readouterr().out
    assert "listings: 4 of its first 4 documents, filters=web" in out
    assert "  kept  good" in out and "      scrubbed: 1 email" in out
    assert "      -Please write to jo@shop.example.com if you like it." in out and "      +Please write to email@example.com if you like it." in out
    assert "  lorem_ipsum  lorem" in out and "  top_3_gram  short" in out
    assert f'  unreadable  {first}:4: has no string "text"' in out
    assert not (root / "data" / "sample" / ".work").exists()


def test_the_time_that_is_left_goes_by_bytes_made_since_it_began() -> None:
    """Half of the bytes were there before; a tenth was made in 20 seconds, four tenths are left."""
    assert describe(Progress("select", 6, 10, 600, 1000, 500, 20.0)) == "6 of 10 units, 5 B/s, 1m 20s left"
    assert describe(Progress("select", 5, 10, 500, 1000, 500, 0.0)) == "5 of 10 units"
    assert describe(Progress("select", 10, 10, 1000, 1000, 500, 100.0)) == "10 of 10 units, 5 B/s, 1m 40s"


def test_a_log_has_a_line_for_each_stage_and_no_bar(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as file, Watcher(Console(file=file, width=100)) as watcher:
        for done in range(4):
            watcher.show(Progress("select", done, 3, done, 3, 0, done))
    assert (tmp_path / "log").read_text() == "select: 3 of 3 units, 1 B/s, 3.0s\n"


def test_without_a_scheduler_that_answers_a_corpus_is_made_and_its_files_tell_how_far_it_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though an earlier chain is on record, whose controller is gone."""
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "no.conf"))
    files = [write_jsonl(tmp_path / f"{word}.jsonl", texts(word, 20)) for word in ("a", "b")]
    own = [
        f"corpus.sources.{name}.{setting}"
        for name, file in zip(("listings", "novels"), files, strict=True)
        for setting in (f"paths=['{file}']", "filters=none")
    ]
    settings = ["corpus=sample", "corpus.name=own", "corpus.benchmarks=[]", "model=tiny", f"model.vocab_size={VOCABULARY}", f"run_root={root}", *own, *GONE]
    ChainRecord(name="own.123456", links=["select"]).save(root / "data" / "own" / "chain.json")
    slurm = [*settings, f"cluster.slurm_conf={tmp_path}/no.conf"]
    assert main(["prepare", "--status", *slurm]) == 0
    assert "not prepared yet" in capsys.readouterr().out
    assert main(["prepare", *slurm]) == 0
    assert main(["prepare", "--status", *slurm]) == 0
    out = capsys.readouterr().out
    assert "SLURM does not answer" in out and "prepared: " in out
