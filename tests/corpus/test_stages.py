"""Stages one by one: what they hold to, and what happens when something is missing, changed or full between them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpt.config.data import CorpusConfig
from cpt.config.run import RunConfig
from cpt.core.errors import MissingInput, UserError
from cpt.corpus.inputs import MOST_ROWS, Shard
from cpt.corpus.pipeline import Pipeline, plan_corpus
from cpt.corpus.prepare import finished, prepare, publish
from cpt.corpus.stages.decide import Edges, Fate, decide_fates, hold_out
from cpt.corpus.stages.records import is_done
from cpt.corpus.stages.select import Selected
from cpt.corpus.tables import read_documents, save_column
from cpt.corpus.units import run_unit
from cpt.corpus.work import run_here, run_units
from tests.corpus.own import quiet, sample, texts, two_sources, write_jsonl, write_rows

NONE = np.empty((2, 0), dtype=np.uint64)


def shards_of(folder: Path, families: list[list[int]]) -> list[tuple[Shard, Selected]]:
    """Shards of one source whose documents' families drew these numbers."""
    found = []
    for number, drawn in enumerate(families):
        selected = Selected(folder, f"{number:05d}")
        save_column(selected.families, np.array(drawn, dtype=np.uint64))
        found.append((Shard(number=number, source="a", index=number, pieces=[]), selected))
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.lists(st.integers(0, 12), max_size=30), min_size=1, max_size=3), st.floats(0, 1), st.integers(1, 20))
def test_whole_families_are_held_out_in_the_order_of_their_draws(tmp_path: Path, families: list[list[int]], fraction: float, most: int) -> None:
    shards = shards_of(tmp_path, families)
    fates = {number: np.zeros(len(drawn), dtype=np.uint8) for number, drawn in enumerate(families)}
    found = hold_out(CorpusConfig(heldout_fraction=fraction, heldout_max_documents=most), shards, fates)
    family = {number * MOST_ROWS + row: drawn for number, each in enumerate(families) for row, drawn in enumerate(each)}
    held = [family[int(number)] for number in found]
    left = [family[number * MOST_ROWS + int(row)] for number, each in fates.items() for row in np.flatnonzero(each == Fate.train)]
    assert sorted(held + left) == sorted(family.values())
    assert held == sorted(held) and all(a < b for a in held for b in left)
    if len(set(family.values())) > 1:
        wanted = min(max(1, round(fraction * len(family))), most)
        assert left and held
        assert len(held) >= wanted or len(set(left)) == 1
        assert len(held) - held.count(held[-1]) < wanted  # not one family more than it takes


def test_a_chain_of_near_duplicates_leaves_its_first_and_an_exact_one_is_called_that(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, [[1, 2, 3], [4, 5, 6]])
    other = MOST_ROWS
    near = np.array([[1, 2, other], [2, other + 1, other + 2]], dtype=np.uint64)  # 1 - 2 - other+1; other - other+2
    exact = np.array([[other], [other + 2]], dtype=np.uint64)
    fates, gone = decide_fates(shards, Edges(exact, near), {})
    assert fates[0].tolist() == [Fate.train, Fate.train, Fate.near_duplicate]
    assert fates[1].tolist() == [Fate.train, Fate.near_duplicate, Fate.exact_duplicate]
    assert gone.T.tolist() == [[2, 1], [other + 1, 1], [other + 2, other]]


def test_what_a_classifier_left_out_is_off_domain(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, [[1, 2, 3]])
    save_column(tmp_path / "scores.npy", np.array([0.1, 0.5, 0.9], dtype=np.float32))
    fates, _ = decide_fates(shards, Edges(NONE, NONE), {0: (tmp_path / "scores.npy", 0.5)})
    assert fates[0].tolist() == [Fate.off_domain, Fate.train, Fate.train]


@pytest.fixture
def own(root: Path, tmp_path: Path) -> RunConfig:
    """Four shards."""
    files = [write_jsonl(tmp_path / f"{word}.jsonl", texts(word, 30)) for word in ("a", "b")]
    return two_sources(root, *files, "corpus.shard_bytes=4000")


def through(config: RunConfig, stage: str) -> Pipeline:
    """Up to a stage."""
    pipeline = plan_corpus(config)
    pipeline.write()
    for each in pipeline.stages:
        for unit in each.missing():
            run_unit(pipeline, each.name, unit)
        if each.name == stage:
            return pipeline
    raise KeyError(stage)


@pytest.mark.parametrize("end", ["parquet", "keys.npy", "families.npy"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_a_file_that_is_lost_between_stages_is_said_and_made_again(own: RunConfig, end: str, damage: str) -> None:
    pipeline = through(own, "select")
    victim = next(pipeline.selected(pipeline.plan.shards[1]).folder.glob(f"*1.{end}"))
    whole = victim.read_bytes()
    victim.unlink() if damage == "gone" else victim.write_bytes(whole[: 0 if damage == "empty" else -7])
    with pytest.raises((MissingInput, UserError), match=r"cpt prepare again|it is gone"):
        for stage in pipeline.stages[1:]:
            for unit in stage.missing():
                run_unit(pipeline, stage.name, unit)
    assert pipeline.stages[0].missing() == [1]
    manifest = prepare(own, quiet)
    assert victim.read_bytes() == whole
    assert finished(plan_corpus(own)) == manifest


def test_units_in_any_order_by_any_process_and_twice_give_the_same(own: RunConfig, tmp_path: Path) -> None:
    before = prepare(own, quiet)
    shutil.rmtree(own.runs.data("own").root)
    pipeline = plan_corpus(own)
    pipeline.write()
    for stage in pipeline.stages:
        for unit in reversed(range(len(stage.records))):
            run_units(pipeline.folder, stage.name, [unit, unit], 1)
        for unit in range(len(stage.records)):
            run_unit(pipeline, stage.name, unit)
    assert publish(pipeline).content_hash == before.content_hash


@pytest.mark.slow
def test_processes_side_by_side_give_the_same(own: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepare(own, quiet)
    shutil.rmtree(own.runs.data("own").root)
    monkeypatch.setattr("cpt.corpus.work._SMALL", 0)
    assert prepare(own, quiet, workers=2).content_hash == before.content_hash


def test_a_changed_setting_does_again_what_it_touches_and_nothing_else(own: RunConfig, root: Path, tmp_path: Path) -> None:
    prepare(own, quiet)
    files = [tmp_path / f"{word}.jsonl" for word in ("a", "b")]
    missing = {}
    for change in (
        "corpus.heldout_fraction=0.2",
        "corpus.dedup.bands=10",
        "corpus.sources.novels.filters=prose",
        "corpus.max_bad_share=0.5",
        "corpus.sources.novels.group=domain",
    ):
        pipeline = plan_corpus(two_sources(root, *files, "corpus.shard_bytes=4000", change))
        missing[change.partition("=")[0]] = [(stage.name, len(stage.missing())) for stage in pipeline.stages if stage.missing()]
    assert missing["corpus.max_bad_share"] == []
    assert [name for name, _ in missing["corpus.sources.novels.group"]] == ["decide", "tokenize"]  # benchmarks are made of a group's documents
    assert [name for name, _ in missing["corpus.heldout_fraction"]] == ["decide", "tokenize"]
    assert missing["corpus.dedup.bands"][:2] == [("select", 4), ("match", 11)]
    assert missing["corpus.sources.novels.filters"][0] == ("select", 2)  # the other source's stay


def test_a_record_without_its_files_is_not_done(own: RunConfig) -> None:
    pipeline = through(own, "select")
    stage = pipeline.stages[0]
    assert is_done(stage.records[0], stage.kind)
    stage.records[0].write_text("{")
    assert not is_done(stage.records[0], stage.kind)


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    folder = root / "data"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "cpt-test", folder], check=False, capture_output=True).returncode:
        pytest.skip("a full disk is played on a tmpfs, which needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_and_what_is_done_stays_done(small_disk: Path, root: Path, tmp_path: Path) -> None:
    rows = [row | {"id": f"{copy}{row['id']}", "text": f"{texts('z', 9)[copy]} {row['text']}"} for copy in range(3) for row in sample("dictionary")]
    files = [write_jsonl(tmp_path / "a.jsonl", texts("a", 30)), write_rows(tmp_path / "b.jsonl", rows)]
    config = two_sources(root, *files, "corpus.shard_bytes=100000")
    with pytest.raises(UserError, match=r"no space left on its disk\n.*what is done stays done"):
        prepare(config, quiet)
    done = [len(stage.records) - len(stage.missing()) for stage in plan_corpus(config).stages]
    assert done[0] > 0
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    again = plan_corpus(config)
    assert [len(stage.records) - len(stage.missing()) for stage in again.stages] == done
    run_here(again, 1, quiet)
    assert finished(again) is None
    assert publish(again) == finished(again)


def test_a_worker_of_the_wrong_tongue_is_told_apart_and_mail_is_scrubbed(root: Path, tmp_path: Path) -> None:
    rows = sample("german")[:20]
    german = write_rows(tmp_path / "a.jsonl", [row | {"text": f"{row['text']}\n\nSchreib an jane.doe@corp.org."} for row in rows])
    english = write_rows(tmp_path / "b.jsonl", [{"id": f"n{n}", "text": text} for n, row in enumerate(sample("novels")[:4]) for text in [row["text"][:3000]]])
    rules = ["corpus.filters.none.language.enabled=true", "corpus.filters.none.scrub=[email]", "corpus.sources.listings.language=de"]
    config = two_sources(root, german, english, *rules)
    manifest = prepare(config, quiet)
    assert manifest.source("listings").scrubbed == {"email": 20}
    pipeline = plan_corpus(config)
    kept = [document.text for shard in pipeline.shards("listings") for batch in read_documents(pipeline.selected(shard).documents) for document in batch]
    assert len(kept) == 20 and not any("jane.doe" in text for text in kept)
    with pytest.raises(UserError, match=r"has 0 of 20 documents left; dropped 20 language"):
        prepare(two_sources(root, german, english, *rules[:2]), quiet)


def test_planted_benchmark_questions_and_heldout_texts_are_found(root: Path, tmp_path: Path) -> None:
    questions = [{"id": f"q{n}", "question": " ".join(f"word{chr(97 + n)}{chr(97 + i)}" for i in range(12))} for n in range(5)]
    benchmark = write_rows(tmp_path / "bench.jsonl", [*questions, {"id": "short", "question": "What is short?"}])
    clean = texts("a", 40)
    dirty = [f"{texts('c', 9)[n]} {question['question'].upper()}! {texts('d', 9)[n]}" for n, question in enumerate(questions)]
    first, second = write_jsonl(tmp_path / "a.jsonl", [*clean, *dirty]), write_jsonl(tmp_path / "b.jsonl", texts("b", 40))
    config = two_sources(root, first, second, f"+corpus.decontaminate.benchmarks.mine=['{benchmark}']", "corpus.heldout_fraction=0.01")
    manifest = prepare(config, quiet)
    (mine,) = (found for found in manifest.contamination if found.name == "mine")
    assert (mine.items, mine.too_short, mine.found, mine.documents) == (5, 1, 5, 5)
    assert manifest.source("listings").dropped == {"contaminated": 5}
    off = prepare(two_sources(root, first, second, "corpus.decontaminate.enabled=false", "corpus.heldout_fraction=0.01"), quiet)
    assert off.contamination == [] and off.source("listings").dropped == {}


def test_where_bad_input_stops_the_first_three_are_named_and_no_more_is_read(root: Path, tmp_path: Path) -> None:
    for number in range(4):
        write_rows(tmp_path / f"a{number}.jsonl", [{"id": f"{number}", "text": "good"}, {"body": "bad"}])
    second = write_jsonl(tmp_path / "b.jsonl", texts("b", 10))
    config = two_sources(root, tmp_path / "a*.jsonl", second)
    with pytest.raises(UserError) as caught:
        prepare(config, quiet)
    assert [problem.where for problem in caught.value.problems] == [f"{tmp_path}/a{number}.jsonl:2" for number in range(3)]
