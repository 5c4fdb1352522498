"""What is planted is what it says it is, and the pipeline finds it in the sample corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cpt.bench.figures import Figures
from cpt.bench.planted import OPTIONS, run
from cpt.bench.planting import DRESSED, EXACT, HALF, LESS, PART, VERBATIM, Copies, Items, Passages, alone, counts, likeness
from cpt.config.data import DecontaminateConfig
from cpt.core.errors import UserError
from cpt.corpus.documents import Document
from cpt.corpus.stages.select import exact_key
from tests.corpora import ASSETS

RULES = DecontaminateConfig()
VOCABULARY = [f"{first}{second}ing" for first in "bcdfg" for second in "aeiou"]


def texts(name: str, number: int) -> list[str]:
    return [json.loads(line)["text"] for line in (ASSETS / f"{name}.jsonl").read_text().splitlines()[:number]]


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.9])
def test_a_copy_is_as_like_as_it_says(wanted: float) -> None:
    copies = Copies(0, VOCABULARY, str.split, 5)
    for text in texts("listings", 3) + texts("novels", 2):
        copy = copies.near(text, wanted)
        assert copy and likeness(copies.grams(copy), copies.grams(text)) == pytest.approx(wanted, abs=0.02)
    assert copies.near("A short text that cannot be half as like", 0.5) is None


def test_an_exact_copy_is_another_text_with_the_same_key() -> None:
    copies = Copies(0, VOCABULARY, str.split, 5)
    for text in texts("listings", 5):
        copy = copies.exact(text)
        assert copy and copy != text and exact_key(copy) == exact_key(text)
    assert copies.exact("ßßß " * 70) is None, "ß has no way back from SS"


def test_passages_are_on_their_side_of_the_share() -> None:
    passages, novels = Passages(0, VOCABULARY, RULES), texts("novels", 12)
    question = next(filter(None, map(passages.question, novels[:6])))
    plants = passages.plants("q", question, [Document(id=str(place), text=text) for place, text in enumerate(novels[6:11])])
    shares = {plant.kind: passages.share(plant.text, question) for plant in plants}
    size = len(question.split())
    assert list(shares) == [VERBATIM, DRESSED, PART, LESS, HALF] and size <= 40
    assert shares[VERBATIM] == shares[DRESSED] == 1
    assert shares[HALF] <= shares[LESS] < 0.5 <= shares[PART] <= shares[LESS] + 0.25, "one word apart"
    assert question not in next(plant.text for plant in plants if plant.kind == DRESSED)
    assert [counts(kind) for kind in shares] == [True, True, True, False, False]


def test_what_many_items_say_is_no_evidence_and_what_others_say_is_no_question() -> None:
    license, own = "you may copy this work under the terms below", ["one two three four five six seven eight", "nine ten eleven twelve a b c d"]
    items = Items(RULES, [[f"{license} {number} {own[0]}" for number in "abcd"], [own[1]]])
    assert items.most(license) == 0 and items.most(own[1]) == 1
    documents = [Document(id=id, text=text) for id, text in (("x", own[0]), ("y", own[1]), ("z", f"so {own[1]} it is"))]
    assert alone({"x": own[0], "y": own[1]}, documents, 8) == {"x": own[0]}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    folder = tmp_path_factory.mktemp("bench")
    options = {"plants": "10", "likeness": "0.5,0.9", "documents": "1200", "workers": "1", "folder": str(folder)}
    figures = run({**OPTIONS, **options}, ["corpus=sample"], print)
    assert not list(folder.iterdir()), "nothing is left behind"
    return figures


@pytest.mark.slow
def test_what_is_planted_is_found(found: Figures) -> None:
    rows = {row["name"]: row for row in found.data["rows"]}
    for kind in (EXACT, "copy, likeness 0.90", VERBATIM, DRESSED, PART):
        assert rows[kind]["found"] == rows[kind]["planted"] >= 5, kind
    for kind in (LESS, HALF):
        assert rows[kind]["false"] == 0 and rows[kind]["planted"] >= 5, kind
    assert rows["copy, likeness 0.50"]["found"] <= 3 and rows["copy, likeness 0.50"]["expected"] == pytest.approx(0.05, abs=0.02)
    assert rows["not planted, left out"]["false"] == 0


@pytest.mark.slow
def test_hidden_domain_documents_are_counted_by_their_truth(found: Figures) -> None:
    judged = [row for row in found.data["rows"] if row["name"].startswith("sklearn, precision")]
    assert [row["planted"] for row in judged] == [judged[0]["planted"]] * 3 and 300 < judged[0]["planted"] < 420  # 40 % of 900
    assert judged[0]["found"] >= judged[1]["found"] >= judged[2]["found"] > 0
    assert judged[0]["false"] >= judged[2]["false"]
    assert "one has learned as other text" in found.notes[-1]


def test_a_corpus_that_cannot_be_planted_in_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"have 2 documents of at least 60 words"):
        run({**OPTIONS, "folder": str(tmp_path), "documents": "10"}, ["corpus=sample", "~corpus.sources.novels"], print)
    with pytest.raises(UserError, match=r"has 0 domain and 2 general English sources"):
        run({**OPTIONS, "folder": str(tmp_path)}, ["corpus=sample", "~corpus.sources.listings"], print)
