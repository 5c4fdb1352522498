"""A classifier in the pipeline: domain documents hidden in the very pool that it learns from as other text, and found."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from cpt.core.errors import UserError
from cpt.corpus.pipeline import Pipeline, plan_corpus
from cpt.corpus.prepare import prepare
from cpt.corpus.stages.decide import Fate
from cpt.corpus.tables import open_column, read_documents
from tests.corpus.own import quiet, sample, write_corpus, write_rows


def section(tmp_path: Path, **classifier: Any) -> dict[str, Any]:
    """Three fifths of the listings are known; the others hide among dictionary entries, which a general source reads again."""
    listings = sample("listings")
    Random(0).shuffle(listings)
    hidden = [row | {"domain": True} for row in listings[540:]]
    pool = [row | {"domain": False} for row in sample("dictionary")[:1500]] + hidden
    Random(1).shuffle(pool)
    known, mixed = write_rows(tmp_path / "known.jsonl", listings[:540]), write_rows(tmp_path / "pool.jsonl", pool)
    mined = {"group": "domain", "paths": [str(mixed)], "classifier": "shop", "fields": {"truth": "domain"}}
    sources = {"listings": {"group": "domain", "paths": [str(known)]}, "mined": mined, "rest": {"paths": [str(mixed)]}}
    return {"sources": sources, "shard_bytes": 200_000, "classifiers": {"shop": {"positives": ["listings"]} | classifier}}


def hidden(pipeline: Pipeline) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(truth, kept by the classifier) of every document of the pool."""
    shards = pipeline.shards("mined")
    truth = [bool(one.truth) for shard in shards for batch in read_documents(pipeline.selected(shard).documents, ("truth",)) for one in batch]
    kept = np.concatenate([open_column(pipeline.fates(shard)) != Fate.off_domain for shard in shards])
    return np.array(truth), kept


@pytest.mark.parametrize("backend", ["sklearn", pytest.param("fasttext", marks=pytest.mark.slow)])
def test_hidden_domain_documents_are_found_though_they_were_learned_as_other_text(root: Path, tmp_path: Path, backend: str) -> None:
    config = write_corpus(root, section(tmp_path, backend=backend, cut_by="precision", cut=0.8))
    manifest = prepare(config, quiet)
    truth, kept = hidden(plan_corpus(config))
    assert (kept & truth).sum() / truth.sum() > 0.9  # 0.3 where a model judges what it was taught
    assert (kept & truth).sum() / kept.sum() > 0.8
    (shop,) = manifest.classifiers
    assert shop.resolved and abs(shop.prevalence - truth.mean()) < 0.03
    assert shop.true_recall is not None and shop.true_recall > 0.9
    assert manifest.source("mined").dropped["off_domain"] == (~kept).sum()


def test_another_cut_filters_and_scores_nothing_again(root: Path, tmp_path: Path) -> None:
    own = section(tmp_path, cut_by="quantile", cut=0.8)
    prepare(write_corpus(root, own), quiet)
    own["classifiers"]["shop"]["cut"] = 0.9
    again = plan_corpus(write_corpus(root, own))
    assert [stage.name for stage in again.stages if stage.missing()] == ["match", "decide", "tokenize"]


def test_a_touched_file_gives_the_same_model_and_corpus(root: Path, tmp_path: Path) -> None:
    config = write_corpus(root, section(tmp_path, cut_by="quantile", cut=0.8, documents=300))
    before, first = prepare(config, quiet), plan_corpus(config)
    model = first.model("shop").with_name("model-0").read_bytes()
    os.utime(tmp_path / "pool.jsonl", (1, 1))
    assert plan_corpus(config).keys["learn shop"] != first.keys["learn shop"]
    assert prepare(config, quiet).content_hash == before.content_hash
    assert plan_corpus(config).model("shop").with_name("model-0").read_bytes() == model


def test_a_pool_without_domain_text_is_refused_by_precision(root: Path, tmp_path: Path) -> None:
    own = section(tmp_path, cut_by="precision", cut=0.9)
    write_rows(tmp_path / "pool.jsonl", [row | {"domain": False} for row in sample("dictionary")[:1500]])
    with pytest.raises(UserError, match=r"corpus\.classifiers\.shop\.cut_by: is precision"):
        prepare(write_corpus(root, own), quiet)
