from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cpt.config.data import Benchmark
from cpt.core.errors import UserError
from cpt.corpus.benchmarks import QUIZ_FILES, Item, Material, build_benchmark, spell_out
from cpt.corpus.debian import Mirror, MirrorUnavailable
from cpt.corpus.documents import Document

LISTINGS = [
    Document(id=f"l{number}", text=f"Title: x\nSection: s\n\nDescription {number}.", title=f"title {number}", topic="tools" if number < 5 else "toys")
    for number in range(9)
]
ENTRIES = [Document(id=f"w{number}", text=f"word{number}\n    n 1: meaning number {number}; an example", title=f"word{number}") for number in range(6)]
GIVEAWAY = Document(id="w9", text="mill\n    n 1: a mill that grinds", title="mill")


class Unpacked(Mirror):
    """A mirror that has bsdgames, or nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def unpack(self, package: str) -> tuple[Path, str]:
        if self._folder is None:
            raise MirrorUnavailable("away")
        return self._folder, "2.17"


def build(name: Benchmark, tmp_path: Path, folder: Path | None = None, seed: int = 0) -> tuple[list[Item], str]:
    material = Material({"domain": LISTINGS, "general": [*ENTRIES, GIVEAWAY]}, Unpacked(folder), seed)
    number, origin = build_benchmark(name, material, tmp_path / "set.jsonl")
    items = [json.loads(line) for line in (tmp_path / "set.jsonl").read_text().splitlines()]
    assert len(items) == number
    return items, origin


def sound(items: list[Item]) -> bool:
    return all(len(set(map(str.lower, item["choices"]))) == 4 and 0 <= item["gold"] < 4 for item in items)


def test_title_asks_for_the_title_of_a_description(tmp_path: Path) -> None:
    items, _ = build(Benchmark.titles, tmp_path)
    assert len(items) == 9
    assert sound(items)
    for item in items:
        number = item["question"].removesuffix(".").split()[-1]
        assert item["choices"][item["gold"]] == f"title {number}"
        assert "Title:" not in item["question"]
        assert item["group"] == "domain"


def test_title_distractors_are_of_the_same_section_where_possible(tmp_path: Path) -> None:
    items, _ = build(Benchmark.titles, tmp_path)
    tools = {f"title {number}" for number in range(5)}
    asked = [item for item in items if item["choices"][item["gold"]] in tools]
    assert len(asked) == 5
    assert all(set(item["choices"]) <= tools for item in asked)


def test_section_asks_for_the_section_of_a_listing(tmp_path: Path) -> None:
    shelves = [replace(listing, topic=f"shelf {number % 5}") for number, listing in enumerate(LISTINGS)]
    material = Material({"domain": [*shelves, replace(LISTINGS[0], id="none", topic="")]}, Unpacked(None), 0)
    assert build_benchmark(Benchmark.sections, material, tmp_path / "set.jsonl") == (9, "sections of held-out listings")
    items = [json.loads(line) for line in (tmp_path / "set.jsonl").read_text().splitlines()]
    assert sound(items)
    for item in items:
        number = int(item["question"].removesuffix(".").split()[-1])
        assert item["choices"][item["gold"]] == f"shelf {number % 5}"
        assert "Section:" not in item["question"]


def test_definition_does_not_give_its_word_away(tmp_path: Path) -> None:
    items, _ = build(Benchmark.definition, tmp_path)
    assert sound(items)
    assert {item["choices"][item["gold"]] for item in items} == {f"word{number}" for number in range(6)}
    assert {item["question"] for item in items} == {f"Which word means: meaning number {number}?" for number in range(6)}


def test_quiz_reads_the_games_files(tmp_path: Path) -> None:
    games = tmp_path / "usr" / "share" / "games" / "bsdgames" / "quiz"
    games.mkdir(parents=True)
    for file, ask, answer, _ in QUIZ_FILES:
        columns = [[f"{file}{row}.{column}" for column in range(1 + max(ask, answer))] for row in range(5)]
        (games / file).write_text("\n".join(":".join(row) for row in columns) + "\n", encoding="latin-1")
    (games / "africa").write_text("C[ô|o]te d'Ivoire:Yamoussoukro\nA:B\nC:D\nE:F{ity}\n", encoding="latin-1")
    items, origin = build(Benchmark.quiz, tmp_path, tmp_path)
    assert origin == "bsdgames 2.17"
    assert sound(items)
    answers = {item["question"]: item["choices"][item["gold"]] for item in items}
    assert answers["What is the capital of Cote d'Ivoire?"] == "Yamoussoukro"
    assert answers["What is the capital of E?"] == "Fity"
    assert answers["Which chemical element has the symbol elements2.0?"] == "elements2.3"


def test_quiz_without_a_mirror_asks_definitions_and_says_so(tmp_path: Path) -> None:
    items, origin = build(Benchmark.quiz, tmp_path)
    assert len(items) == 6
    assert origin == "fallback (away): definitions of held-out dictionary entries"


def test_same_seed_same_items_other_seed_other_order(tmp_path: Path) -> None:
    first = build(Benchmark.titles, tmp_path)[0]
    assert build(Benchmark.titles, tmp_path)[0] == first
    assert build(Benchmark.titles, tmp_path, seed=1)[0] != first


def test_too_little_to_ask(tmp_path: Path) -> None:
    material = Material({"domain": LISTINGS[:3]}, Unpacked(None), 0)
    with pytest.raises(UserError, match="titles has no items"):
        build_benchmark(Benchmark.titles, material, tmp_path / "set.jsonl")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("Algiers", "Algiers"),
        ("{the }sparrow", "the sparrow"),
        ("Yaound['e|e'|e]", "Yaounde"),
        ("C[^o|o^|o]te d'Ivoire", "Cote d'Ivoire"),
        ("{John {F{.} }}Kennedy|JFK", "John F. Kennedy"),
        ("Santo  Domingo|S. D.", "Santo Domingo"),
    ],
)
def test_quiz_patterns(pattern: str, text: str) -> None:
    assert spell_out(pattern) == text
