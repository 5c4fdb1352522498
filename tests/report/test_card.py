"""The data card: every document accounted for on the page, nothing of a corpus run as markup, and honest words where something is not known."""

from __future__ import annotations

import ast
import base64
import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cpt.config.run import RunConfig
from cpt.core.errors import MissingInput
from cpt.core.manifest import ClassifierRecord, DataManifest
from cpt.corpus.cut import Curve, curve
from cpt.corpus.inspection import Inspection
from cpt.corpus.prepare import prepare
from cpt.corpus.stages.decide import Fate
from cpt.corpus.stages.learn import Judged
from cpt.report import card_pictures
from cpt.report.card import Prepared, render, write_data_card
from cpt.report.card_documents import differences
from cpt.report.card_reasons import explain, grouped
from tests.corpora import configure, make_tokenizer

from .test_report import Balance

CORPUS = """
name: own
sources:
  shop: {{group: domain, paths: [{root}/shop.jsonl], filters: listing, license: CC0-1.0}}
  pages: {{paths: [{root}/pages.jsonl], language: de}}
filters:
  listing: {{scrub: [email]}}
bad_input: quarantine
max_bad_share: 0.5
decontaminate: {{benchmarks: {{quiz: [{root}/quiz.jsonl]}}}}
"""
EVIL = "<script>alert('{}')</script>"


def words(seed: int, number: int = 60) -> str:
    """No two seeds have two words in a row in common."""
    random = np.random.default_rng(seed)
    return " ".join("".join(random.choice(list("abcdefghijklmnop"), 7)) for _ in range(number))


def write_jsonl(path: Path, rows: list[dict[str, str]], *more: str) -> None:
    path.write_text("".join(f"{line}\n" for line in [*map(json.dumps, rows), *more]))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A small corpus, prepared: one document short, one contaminated, one twin of each kind, two records that cannot be read, all of them hostile."""
    root = tmp_path_factory.mktemp("card")
    make_tokenizer(root / "base/tiny/tokenizer.json")
    (root / "conf/corpus").mkdir(parents=True)
    (root / "conf/corpus/own.yaml").write_text(CORPUS.format(root=root))
    shop = [{"id": f"s{seed}", "text": words(seed)} for seed in range(40)]
    shop += [{"id": EVIL.format("id"), "text": EVIL.format("short")}, {"id": "mail", "text": words(77) + " me@shop.example.com and you@shop.example.com"}]
    pages = [{"id": f"p{seed}", "text": f"{EVIL.format('text')} {words(seed)}"} for seed in range(100, 140)]
    pages += [{"id": EVIL.format("twin"), "text": pages[0]["text"]}, {"id": EVIL.format("near"), "text": pages[1]["text"] + " another"}]
    pages += [{"id": EVIL.format("cheat"), "text": words(200) + " " + words(300, 20)}]
    write_jsonl(root / "shop.jsonl", shop)
    write_jsonl(root / "pages.jsonl", pages, f'{{"text": "{EVIL.format("broken")}', '{"id": "none"}')
    write_jsonl(root / "quiz.jsonl", [{"id": EVIL.format("item"), "question": words(300, 20)}, {"id": "tiny", "question": "What is it?"}])
    config = configure(root, "corpus=own")
    prepare(config, lambda progress: None)
    return config


@pytest.fixture(scope="module")
def page(config: RunConfig) -> str:
    return write_data_card(config).read_text()


def read(config: RunConfig) -> Prepared:
    paths = config.runs.data(config.corpus.name)
    return Prepared(config, DataManifest.load(paths.manifest), Inspection.load(paths.inspection))


def row(page: str, first: str) -> list[str]:
    """Cells of the table row whose first cell begins so."""
    found = next(line for line in re.findall(r"<tr[^>]*>(.*?)</tr>", page) if re.sub(r"<[^>]*>", "", line).startswith(first))
    return [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", found)]


def test_page_is_whole_fetches_nothing_and_runs_nothing_of_the_corpus(page: str) -> None:
    parser = Balance()
    parser.feed(page.replace("<wbr>", ""))
    assert parser.open == []
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert "<script" not in page and "url(" not in page
    text = page.replace("<wbr>", "")
    for what in ("id", "short", "text", "near", "cheat", "item", "broken"):  # each is shown somewhere, as text
        assert f"&lt;script&gt;alert(&#x27;{what}" in text


def test_numbers_are_the_manifests(config: RunConfig, page: str) -> None:
    manifest = read(config).manifest
    shop, pages = manifest.source("shop"), manifest.source("pages")
    assert (shop.dropped, pages.dropped) == (
        {"gopher_short_doc": 1},
        {"exact_duplicate": 1, "near_duplicate": 1, "contaminated": 1, "unreadable": 2},
    )
    assert row(page, "shop (domain, en)")[1:6:2] == ["42", str(shop.train.documents), "1"]
    assert row(page, "pages (general, de)")[1:6:2] == ["45", str(pages.train.documents), "5"]
    assert row(page, "unreadable")[1:] == ["", "2", "2"]
    assert row(page, "gopher_short_doc")[1:] == ["1", "", "1"]
    assert "Fewer than 20 words." in page
    assert row(page, "quiz") == ["quiz", "1", "1", "0", "1", "1"]
    assert row(page, "email") == ["email", "2"]
    assert f"{shop.train.documents + shop.heldout.documents + pages.train.documents + pages.heldout.documents} of 87 read" in page
    tokens = [shop.train.tokens, 0, pages.train.tokens]  # German: not English, whatever its group
    assert " : ".join(f"{100 * each / sum(tokens):.0f}" for each in tokens) in page


def test_pictures_show_every_document(config: RunConfig, page: str) -> None:
    images = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)]
    assert len(images) == 3  # all clusters are of one size: nothing to draw
    assert {struct.unpack(">II", image[16:24])[0] for image in images} == {1440}
    for source in read(config).manifest.sources:
        assert set(grouped(source.dropped)) <= set(card_pictures.FATES)
        assert sum(grouped(source.dropped).values()) == sum(source.dropped.values())
    assert grouped({"list_ratio": 1, "empty": 2, "language": 4}) == {"filters": 3, "other language": 4}


def test_what_a_reader_must_know_comes_first(config: RunConfig, page: str) -> None:
    first = page[: page.index('class="cards"')]
    assert "1 of 2 items of quiz have fewer than 8 words" in first
    assert "No license is stated for pages." in first
    assert "lost" not in first
    prepared = read(config)
    shop, pages = prepared.manifest.sources
    lossy = replace(
        prepared.manifest, sources=[replace(shop, dropped={"off_domain": 40}), replace(pages, dropped={"list_ratio": 40}, origin="fallback: a.jsonl")]
    )
    first = render(replace(prepared, manifest=lossy)).partition('class="cards"')[0]
    assert "Source pages lost 88.9% of its documents for one reason: list_ratio." in first and "Source pages is a substitute" in first
    assert "Source shop" not in first  # a classifier is there to leave most out


def test_a_corpus_without_anything_special_has_a_page(config: RunConfig) -> None:
    prepared = read(config)
    sources = [replace(source, dropped={}, scrubbed={}) for source in prepared.manifest.sources]
    inspected = {name: replace(one, lengths={}, examples={}) for name, one in prepared.inspection.sources.items()}
    plain = replace(
        prepared,
        manifest=replace(prepared.manifest, sources=sources, contamination=[], stages=[]),
        inspection=replace(prepared.inspection, sources=inspected, clusters={}, pairs=[], contaminated=[]),
    )
    text = render(plain)
    for said in ("Nothing was left out.", "No document is a duplicate", "Nothing was looked for", "Nothing was replaced"):
        assert said in text


def judged(config: RunConfig, measured: Curve, cut: float, prepared: Prepared) -> Prepared:
    """As if a classifier had judged `shop`."""
    place = min(int(np.searchsorted(measured.thresholds, cut)), len(measured.kept) - 1)
    record = ClassifierRecord(
        name="taste", backend="sklearn", positives=900, negatives=800, auc=measured.auc, prevalence=measured.prevalence, cut=cut,
        kept=measured.kept[place], recall=measured.recall[place], precision=measured.precision[place], resolved=measured.resolved,
    )  # fmt: skip
    around = [Judged(id="above", score=float(np.float32(cut)), text=EVIL), Judged(id="below", score=cut - 0.01, text="b")]
    shop = replace(config.corpus.sources["shop"], classifier="taste")
    corpus = replace(config.corpus, sources=config.corpus.sources | {"shop": shop})
    inspection = replace(prepared.inspection, curves={"taste": measured}, at_the_cut={"shop": around})
    return Prepared(replace(config, corpus=corpus), replace(prepared.manifest, classifiers=[record]), inspection)


def scores(domain: int, other: int) -> tuple[Curve, Curve]:
    """A pool's curve, without and with its truth."""
    random = np.random.default_rng(5)
    squash = lambda values: 1 / (1 + np.exp(-values))  # noqa: E731
    positives, pool = squash(random.normal(2, 1, 400)), squash(np.concatenate([random.normal(2, 1, domain), random.normal(-2, 1, other)]))
    return curve(positives, pool), curve(positives, pool, np.arange(domain + other) < domain)


def test_a_cut_can_be_chosen_from_the_page(config: RunConfig) -> None:
    measured, known = scores(400, 2000)
    assert measured.resolved
    cut = 0.7  # as 32 bits, 0.69999999
    text = render(judged(config, known, cut, read(config)))
    place = int(np.searchsorted(known.thresholds, cut))
    marked = re.search(r'<tr class="marked">(.*?)</tr>', text)
    assert marked
    assert re.findall(r">([^<]+)</td>", marked[1]) == [
        "0.7 (this cut)",
        f"{1 - known.kept[place]:.4f}",
        f"{100 * known.kept[place]:.2f}%",
        f"{100 * known.recall[place]:.1f}%",
        f"{100 * known.precision[place]:.1f}%",
        f"{100 * known.true_recall[place]:.1f}%",
        f"{100 * known.true_precision[place]:.1f}%",
    ]
    assert re.findall(r">(stays|goes)<", text) == ["stays", "goes"]
    assert "upper bound" not in text and "≤" not in text
    assert "true recall" not in render(judged(config, measured, cut, read(config)))


def test_a_precision_that_nobody_can_tell_is_called_a_bound(config: RunConfig) -> None:
    measured, _ = scores(6, 400)
    assert not measured.resolved
    text = render(judged(config, measured, 0.9, read(config)))
    assert "upper bounds; read what it kept" in text.partition('class="cards"')[0]
    assert "precision is an upper bound" in text and "≤ 100.0%" in text


def test_a_score_near_one_is_not_rounded_to_another_cut() -> None:
    assert [card_pictures.score(value) for value in (0.30425966, 0.99957, 1.0, 3.5e-7)] == ["0.304", "0.99957", "1", "3.5e-07"]


def test_every_reason_is_put_in_words(repository: Path, config: RunConfig) -> None:
    """Those that the rules return, found in their source: a new rule needs a sentence."""
    tree = ast.parse((repository / "cpt/corpus/rules.py").read_text())
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
    firsts = [value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value for value in returned]
    reasons = {value.value for value in firsts if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value}
    reasons |= {f"dup_{kind}{end}" for kind in ("line", "para") for end in ("_frac", "_char_frac")} | {"top_2_gram", "duplicated_10_n_grams"}
    assert len(reasons) > 20
    reasons |= {"language", "contaminated", "unreadable"} | {fate.name for fate in Fate if fate not in (Fate.train, Fate.heldout)}
    assert [reason for reason in sorted(reasons) if not explain(reason, config.corpus, "shop")] == []
    assert explain("duplicated_10_n_grams", config.corpus, "shop") == "Rows of 10 words that came before have more than 10% of its characters."
    assert explain("gopher_short_doc", config.corpus, "gone") == ""


def test_only_what_differs_is_marked() -> None:
    marks = re.compile(r"<mark[^>]*>(.*?)</mark>")
    left, right = differences("the <b>red</b> chair is here and there", "the blue chair is here and there today")
    assert (marks.findall(left.markup), marks.findall(right.markup)) == (["&lt;b&gt;red&lt;/b&gt;"], ["blue", "today"])
    left, right = differences(f"new {words(1)}"[:400], words(1)[:400])  # beginnings: the other goes on where one was cut off
    assert (marks.findall(left.markup), marks.findall(right.markup)) == (["new"], [])
    left, right = differences("one two three", "four five six")
    assert marks.findall(left.markup + right.markup) == []


def test_without_a_corpus_there_is_no_page(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        write_data_card(replace(config, run_root=str(tmp_path)))
    assert list(tmp_path.rglob("card.html")) == []
