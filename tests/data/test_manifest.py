from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from cpt.config.run import RunConfig
from cpt.core.artifacts import sha256_file
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.core.manifest import DataManifest
from cpt.data import open_manifest
from cpt.data.indexed import bin_path
from tests.corpora import configure, make_tokenizer

Prepared = tuple[RunConfig, DataManifest]


@pytest.fixture
def copied(prepared: Prepared, tmp_path: Path) -> Path:
    """The prepared corpus and its base at a root that the test may damage."""
    shutil.copytree(prepared[0].runs.root, tmp_path, dirs_exist_ok=True)
    return tmp_path


def problem(config: RunConfig) -> Problem:
    with pytest.raises(UserError) as caught:
        open_manifest(config)
    [found] = caught.value.problems
    return found


def test_opens_what_fits(copied: Path, prepared: Prepared) -> None:
    assert open_manifest(configure(copied)) == prepared[1]


def test_a_base_is_not_needed_to_open(copied: Path, prepared: Prepared) -> None:
    shutil.rmtree(copied / "base")
    assert open_manifest(configure(copied)) == prepared[1]


def test_never_prepared(tmp_path: Path) -> None:
    with pytest.raises(MissingInput) as caught:
        open_manifest(configure(tmp_path))
    expected = Problem(
        where=f"{tmp_path}/data/sample/manifest.json",
        what="not found",
        why="corpus sample is not prepared",
        fix=f"cpt prepare corpus=sample model=tiny run_root={tmp_path}",
    )
    assert caught.value.problems == (expected,)


def test_other_corpus_settings(copied: Path) -> None:
    assert problem(configure(copied, "corpus.seed=7")) == Problem(
        where="corpus",
        what="differs from the section that prepared the data",
        why=f"{copied}/data/sample/manifest.json was made from other settings",
        fix=f"cpt prepare corpus=sample model=tiny run_root={copied}",
    )


def test_other_tokenizer(copied: Path) -> None:
    file = copied / "base" / "tiny" / "tokenizer.json"
    make_tokenizer(file, "<|end|>")
    assert problem(configure(copied)) == Problem(
        where=str(file),
        what="is not the tokenizer of the data",
        why=f"{copied}/data/sample/manifest.json was made with another one: token ids would mean other words",
        fix=f"cpt prepare corpus=sample model=tiny run_root={copied}",
    )


def test_other_vocabulary(copied: Path) -> None:
    assert problem(configure(copied, "model.vocab_size=256")) == Problem(
        where="model.vocab_size",
        what="is 256",
        why="the data has token ids up to 511",
        fix=f"cpt prepare corpus=sample model=tiny run_root={copied}",
    )


def test_all_mismatches_at_once(copied: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_manifest(configure(copied, "model.vocab_size=256", "corpus.seed=7"))
    assert [found.where for found in caught.value.problems] == ["corpus", "model.vocab_size"]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_truncated_bin(copied: Path, prepared: Prepared, split: str) -> None:
    config = configure(copied)
    shard = getattr(prepared[1].source("french"), split).shards[0]
    file = bin_path(config.runs.data("sample").root / shard.prefix)
    size = file.stat().st_size
    with open(file, "r+b") as opened:
        opened.truncate(size - 2)
    assert problem(config) == Problem(where=str(file), what=f"has {size - 2} bytes", why=f"its .idx promises {size}: it was cut or changed", fix="cpt prepare")


def test_content_hash_follows_the_data_alone(prepared: Prepared) -> None:
    manifest = prepared[1]
    assert dataclasses.replace(manifest, stages=[], corpus="other").content_hash == manifest.content_hash
    assert dataclasses.replace(manifest, tokenizer_sha256="0").content_hash != manifest.content_hash


def test_recorded_hashes_are_the_files(prepared: Prepared) -> None:
    config, manifest = prepared
    root = config.runs.data("sample").root
    assert all(
        sha256_file(bin_path(root / shard.prefix)) == shard.sha256
        for source in manifest.sources
        for split in (source.train, source.heldout)
        for shard in split.shards
    )
