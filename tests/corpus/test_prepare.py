from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from cpt.config.run import RunConfig
from cpt.core.errors import MissingInput, UserError
from cpt.core.manifest import DataManifest
from cpt.corpus.documents import drawn
from cpt.corpus.pipeline import plan_corpus
from cpt.corpus.prepare import finished, prepare
from cpt.corpus.tokens import DocumentTokenizer, open_tokenizer
from cpt.corpus.work import Progress, alone
from cpt.data import open_manifest
from cpt.data.indexed import IndexedTokens, bin_path, ids_path
from jobs.cli import main
from tests.corpora import VOCABULARY, configure, give_tokenizer, make_tokenizer
from tests.corpus.own import quiet, sample, texts, two_sources, write_jsonl

Prepared = tuple[RunConfig, DataManifest]


def stands(config: RunConfig) -> DataManifest | None:
    """The manifest, when there is nothing left to do."""
    return finished(plan_corpus(config))


def prefix(config: RunConfig, manifest: DataManifest, source: str, split: str) -> Path:
    """Of the first shard's files."""
    return config.runs.data(manifest.corpus).root / getattr(manifest.source(source), split).shards[0].prefix


def everything(config: RunConfig) -> dict[str, bytes]:
    """What a corpus consists of, but for the seconds that it took."""
    root = config.runs.data(config.corpus.name).root
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".json" and ".work/plan-" not in str(path) and path.name != ".lock"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def copy(prepared: Prepared, root: Path) -> RunConfig:
    """The prepared corpus and its base at another root."""
    shutil.copytree(prepared[0].runs.root, root, dirs_exist_ok=True)
    return configure(root)


def test_every_document_is_accounted_for(prepared: Prepared) -> None:
    manifest = prepared[1]
    for source in manifest.sources:
        assert source.documents_read == sum(source.dropped.values()) + source.train.documents + source.heldout.documents
        assert source.documents_read == len(sample(source.name))
        assert source.heldout.documents == round(0.05 * (source.train.documents + source.heldout.documents)) or source.name == "listings"
        assert source.origin == f"tests/assets/{source.name}.jsonl"
    assert manifest.source("dictionary").dropped["near_duplicate"] > 0


def test_what_is_in_the_files_is_what_the_manifest_says(prepared: Prepared) -> None:
    config, manifest = prepared
    root = config.runs.data("sample").root
    for source in manifest.sources:
        for split in (source.train, source.heldout):
            tokens = IndexedTokens(split.prefixes(root))
            assert (len(tokens), tokens.tokens, tokens.dtype) == (split.documents, split.tokens, manifest.dtype)
            assert all(tokens.document(index)[-1] == manifest.end_of_document_id for index in range(len(tokens)))
    for name, items in manifest.benchmarks.items():
        assert len(config.runs.data("sample").benchmark(name).read_text().splitlines()) == items > 20


def test_tokens_decode_to_the_documents_that_the_ids_name(prepared: Prepared) -> None:
    from tokenizers import Tokenizer

    config, manifest = prepared
    tokenizer = Tokenizer.from_file(str(config.runs.base("tiny") / "tokenizer.json"))
    given = {row["id"]: row["text"] for row in sample("german")}
    seen = []
    for split in ("train", "heldout"):
        files = prefix(config, manifest, "german", split)
        tokens = IndexedTokens([files])
        for index, line in enumerate(ids_path(files).read_text().splitlines()):
            document = tokens.document(index)
            assert (document == manifest.end_of_document_id).sum() == 1
            assert tokenizer.decode(document[:-1].tolist()) == given[json.loads(line)]
            seen.append(json.loads(line))
    assert sorted(seen) == sorted(given)


def test_no_family_is_trained_on_and_held_out(prepared: Prepared) -> None:
    config, manifest = prepared
    family = {row["id"]: row["family"] for row in sample("listings")}
    train, heldout = (
        {family[json.loads(line)] for line in ids_path(prefix(config, manifest, "listings", split)).read_text().splitlines()} for split in ("train", "heldout")
    )
    assert train
    assert heldout
    assert not train & heldout


def test_text_that_spells_the_end_of_document_does_not_end_it(root: Path) -> None:
    tokenizer = open_tokenizer(configure(root))
    [ids] = tokenizer.encode(["a <|endoftext|> b"])
    assert (ids == tokenizer.end_of_document).nonzero()[0].tolist() == [len(ids) - 1]


def test_planted_duplicates_are_removed_across_sources(root: Path, tmp_path: Path) -> None:
    originals = texts("a", 20)
    near = [f"{text} sparrow" for text in originals[:5]]
    first = write_jsonl(tmp_path / "first.jsonl", originals)
    second = write_jsonl(tmp_path / "second.jsonl", [*originals[5:8], *near, *texts("b", 10)])
    manifest = prepare(two_sources(root, first, second), quiet)
    assert manifest.source("listings").dropped == {}
    assert manifest.source("novels").dropped == {"exact_duplicate": 3, "near_duplicate": 5}


def test_prepared_twice_is_the_same_bytes(prepared: Prepared, root: Path) -> None:
    seen: list[Progress] = []
    config = configure(root)
    again = prepare(config, seen.append)
    assert again.content_hash == prepared[1].content_hash
    assert everything(config) == everything(prepared[0])
    assert [progress.stage for progress in seen if progress.done == progress.units] == ["select", "match", "decide", "tokenize"]


def test_a_second_run_finds_everything_done(prepared: Prepared, tmp_path: Path) -> None:
    config = copy(prepared, tmp_path)
    assert stands(config) == prepared[1]


@pytest.mark.parametrize("damage", ["bin", "bytes", "benchmark", "manifest", "settings", "tokenizer"])
def test_whatever_is_missing_or_changed_is_made_again(prepared: Prepared, tmp_path: Path, damage: str) -> None:
    config = copy(prepared, tmp_path)
    paths = config.runs.data("sample")
    victim = bin_path(prefix(config, prepared[1], "novels", "train"))
    match damage:
        case "bin":
            victim.unlink()
        case "bytes":
            victim.write_bytes(bytes(victim.stat().st_size))
        case "benchmark":
            paths.benchmark("sections").unlink()
        case "manifest":
            paths.manifest.write_text("{")
        case "settings":
            config = configure(tmp_path, "corpus.seed=1")
        case "tokenizer":
            make_tokenizer(tmp_path / "base" / "tiny" / "tokenizer.json", "<|end|>")
            config = configure(tmp_path, "model.end_of_document='<|end|>'")
    assert stands(config) is None


def test_a_changed_input_file_is_prepared_again(root: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", texts("a", 10))
    config = two_sources(root, file, write_jsonl(tmp_path / "b.jsonl", texts("b", 10)))
    prepare(config, quiet)
    assert stands(config) is not None
    write_jsonl(file, texts("c", 10))
    assert stands(config) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from cpt.corpus.prepare import prepare
from tests.corpus.own import two_sources
seen = []
def watch(progress):
    seen.append(progress)
    if len(seen) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
prepare(two_sources(*map(Path, sys.argv[1:4]), "corpus.shard_bytes=3000"), watch)
"""


@pytest.mark.parametrize("moment", [4, 30])
def test_a_killed_run_goes_on_to_the_bytes_of_an_undisturbed_one(root: Path, tmp_path: Path, tokenizer_file: Path, repository: Path, moment: int) -> None:
    files = [write_jsonl(tmp_path / f"{word}.jsonl", texts(word, 40)) for word in ("a", "b")]
    give_tokenizer(tmp_path / "other", tokenizer_file)
    undisturbed = two_sources(tmp_path / "other", *files, "corpus.shard_bytes=3000")
    units = sum(stage.units for stage in prepare(undisturbed, quiet).stages)
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), *map(str, files), str(moment)], cwd=repository, check=False)
    assert done.returncode == -9
    config = two_sources(root, *files, "corpus.shard_bytes=3000")
    with pytest.raises(MissingInput):
        open_manifest(config)
    seen: list[Progress] = []
    prepare(config, seen.append)
    assert stands(config) is not None
    assert everything(config) == everything(undisturbed)
    stages = ["select", "match", "decide", "tokenize"]
    assert units >= 30 and len(seen) <= units + 2 * len(stages) - moment  # what was done is not done again


def test_a_run_that_fails_leaves_the_old_corpus_alone(prepared: Prepared, tmp_path: Path) -> None:
    config = copy(prepared, tmp_path)

    def fail(progress: Progress) -> None:
        raise RuntimeError(progress.stage)

    with pytest.raises(RuntimeError):
        prepare(configure(tmp_path, "corpus.seed=1"), fail)
    assert stands(config) is not None


def test_a_kill_while_moving_in_leaves_no_manifest(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = copy(prepared, tmp_path)

    def killed(path: Path, data: bytes) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("cpt.corpus.prepare.write_bytes", killed)
        with pytest.raises(RuntimeError):
            prepare(config, quiet)
    with pytest.raises(MissingInput):
        open_manifest(config)


def test_two_at_once_are_refused(root: Path) -> None:
    config = configure(root)
    with alone(config.runs.data("sample")), pytest.raises(UserError, match="is being prepared"):
        prepare(config, quiet)


def test_a_share_is_drawn_by_id_and_said_in_the_origin(root: Path) -> None:
    config = configure(root, "corpus.sources.german.share=0.6")
    manifest = prepare(config, quiet)
    german = manifest.source("german")
    assert 40 < german.documents_read < 80
    assert german.origin.endswith("; 60% of the documents drawn")
    ids = {json.loads(line) for split in ("train", "heldout") for line in ids_path(prefix(config, manifest, "german", split)).read_text().splitlines()}
    assert ids == {row["id"] for row in sample("german") if drawn(config.corpus.seed, row["id"], 0.6)}


def test_records_that_cannot_be_read_are_put_aside_and_counted(root: Path, tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", texts("a", 20))
    first.write_text(first.read_text().replace('"text"', '"body"', 1))
    second = write_jsonl(tmp_path / "b.jsonl", texts("b", 10))
    with pytest.raises(UserError, match=r'a\.jsonl:1: has no string "text"'):
        prepare(two_sources(root, first, second), quiet)
    with pytest.raises(UserError, match=r"1 of the source's records cannot be read, 5\.00%; corpus\.max_bad_share is 0\.10%"):
        prepare(two_sources(root, first, second, "corpus.bad_input=quarantine"), quiet)
    config = two_sources(root, first, second, "corpus.bad_input=quarantine", "corpus.max_bad_share=0.05")
    listings = prepare(config, quiet).source("listings")
    assert (listings.documents_read, listings.dropped) == (20, {"unreadable": 1})
    (aside,) = config.runs.data("own").quarantine("listings").read_text().splitlines()
    assert json.loads(aside)["where"] == f"{first}:1"


def refused(capsys: pytest.CaptureFixture[str], root: Path, *overrides: str) -> str:
    """What `cpt prepare` says when it refuses."""
    code = main(["prepare", "model=tiny", "corpus=sample", f"run_root={root}", "model.vocab_size=512", *overrides])
    assert code == 2
    return capsys.readouterr().err


def test_cli_prepares_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prepare", "model=tiny", "corpus=sample", f"run_root={root}", "model.vocab_size=512"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "select: 5 of 5 units, " in first
    assert "prepared in" in first and f"data card: {root}/data/sample/card.html" in first
    assert "\x1b" not in first
    assert main(arguments) == 0
    assert f"already prepared, nothing to do: {root}/data/sample/manifest.json" in capsys.readouterr().out


def test_cli_missing_corpus_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, root, "corpus.sources.novels.paths=[no/such.jsonl]")
    assert "corpus.sources.novels.paths: no/such.jsonl not found" in said


def test_cli_malformed_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"text": "bad\n')
    said = refused(capsys, root, f"corpus.sources.novels.paths=['{tmp_path}/bad.jsonl']")
    assert f"{tmp_path}/bad.jsonl:2: is not JSON" in said
    assert "fix: repair or remove them, or corpus.bad_input=quarantine" in said


def test_cli_source_empty_after_filters(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_jsonl(tmp_path / "short.jsonl", ["too short", "also short"])
    said = refused(capsys, root, f"corpus.sources.novels.paths=['{file}']")
    assert "corpus.sources.novels: has 0 of 2 documents left; dropped 2 " in said


def test_cli_without_a_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, tmp_path)
    assert f"{tmp_path}/base/tiny/tokenizer.json: not found" in said
    assert "fix: cpt base model=tiny" in said


def test_cli_end_of_document_not_in_the_vocabulary(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, root, "model.end_of_document='<|nope|>'")
    assert "model.end_of_document: is '<|nope|>'" in said


def test_cli_more_ids_than_the_model_has_rows(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, root, "model.vocab_size=511")
    assert "model.vocab_size: is 511" in said and "tokenizer.json has ids up to 511" in said


def test_rows_that_no_token_uses(root: Path) -> None:
    """Qwen2.5's 152,064 rows have 151,665 tokens; so have DeepSeek's and Qwen3's more than theirs."""
    config = configure(root, "model.vocab_size=640")
    manifest = prepare(config, quiet)
    assert manifest.vocab_size == VOCABULARY
    assert open_manifest(config) == manifest


def test_a_tokenizer_that_leaves_ids_out() -> None:
    """The type of the file goes by the largest id: by their number, three, 70000 would be wrapped around."""
    found = DocumentTokenizer(Tokenizer(models.WordLevel({"a": 0, "b": 70_000, "<end>": 2}, unk_token="a")), 2, "")
    assert (found.vocab_size, found.dtype) == (70_001, "int32")


def test_cli_damaged_tokenizer(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "base" / "tiny" / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: is no tokenizer" in refused(capsys, root)
