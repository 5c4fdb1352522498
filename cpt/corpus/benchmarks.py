"""Small multiple-choice sets, built offline beside the data: items of {"question", "choices", "gold", "group"}, four choices each.

`quiz` and `definition` measure what the base knew (general), `titles` and `sections` what the corpus teaches (domain). Questions made from documents
use held-out ones only. Items come in a seeded order, so that the first n of them are a fair sample.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from cpt.config.data import Benchmark
from cpt.core.artifacts import write_text
from cpt.core.errors import Problem, UserError
from cpt.corpus.debian import Mirror, MirrorUnavailable
from cpt.corpus.documents import Document

CHOICES = 4
MAX_ITEMS = 500
MAX_QUESTION_CHARACTERS = 600

# File of the quiz game, column of the question, column of the answer, wording.
QUIZ_FILES = (
    ("africa", 0, 1, "What is the capital of {}?"),
    ("america", 0, 1, "What is the capital of {}?"),
    ("asia", 0, 1, "What is the capital of {}?"),
    ("europe", 0, 1, "What is the capital of {}?"),
    ("province", 0, 1, "What is the capital of the Canadian province {}?"),
    ("state", 0, 1, "What is the capital of the US state {}?"),
    ("elements", 0, 3, "Which chemical element has the symbol {}?"),
    ("babies", 1, 0, "What is a young {} called?"),
)

Item = dict[str, Any]
_SENSE = re.compile(r"\b(n|v|adj|adv)? ?\d*\s?: ([^;\[]+)")


@dataclass(frozen=True, slots=True)
class Material:
    """What benchmarks are made from."""

    heldout: dict[str, list[Document]]
    """Group -> held-out documents that have a title."""
    mirror: Mirror
    seed: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question before it has distractors; those come from the same `pool` where that is large enough."""

    text: str
    answer: str
    pool: str


def build_benchmark(name: Benchmark, material: Material, path: Path) -> tuple[int, str]:
    """Write the JSONL of one set: (items, what it was made from). Raises `UserError` when there is too little to ask."""
    questions, group, origin = BUILDERS[name](material)
    items = _items(questions, group, material.seed)
    if not items:
        why = "needs four held-out documents with different titles"
        raise UserError(Problem(where="corpus.benchmarks", what=f"{name} has no items", why=why, fix="more documents, or remove it from corpus.benchmarks"))
    write_text(path, "".join(json.dumps(item, ensure_ascii=False, sort_keys=True) + "\n" for item in items))
    return len(items), origin


def quiz(material: Material) -> tuple[list[Question], str, str]:
    """Capitals and elements from the bsdgames quiz files; without a mirror the definitions instead."""
    try:
        folder, version = material.mirror.unpack("bsdgames")
    except MirrorUnavailable as error:
        questions, group, origin = definition(material)
        return questions, group, f"fallback ({error}): {origin}"
    games = next(folder.rglob("bsdgames/quiz"))
    questions = [question for file, ask, answer, wording in QUIZ_FILES for question in _quiz_file(games / file, ask, answer, wording)]
    return questions, "general", f"bsdgames {version}"


def definition(material: Material) -> tuple[list[Question], str, str]:
    """Dictionary definition -> headword, when the definition does not give the word away."""
    questions = []
    for document in material.heldout.get("general", []):
        match = _SENSE.search(document.text)
        if match and document.title.lower() not in match[2].lower():
            questions.append(Question(f"Which word means: {' '.join(match[2].split())}?", document.title, match[1] or ""))
    return questions, "general", "definitions of held-out dictionary entries"


def titles(material: Material) -> tuple[list[Question], str, str]:
    """A held-out listing's description without its header -> its title; distractors from the same section."""
    questions = []
    for document in material.heldout.get("domain", []):
        body = document.text.partition("\n\n")[2]
        if body and document.title.lower() not in body.lower():
            questions.append(Question(f"Which title fits this listing?\n\n{_shorten(body)}", document.title, document.topic))
    return questions, "domain", "titles of held-out listings"


def sections(material: Material) -> tuple[list[Question], str, str]:
    """A held-out listing without its header -> the section of the catalogue it is in, which only the domain knows."""
    wording = "In which section of the catalogue is this listing?"
    questions = []
    for document in material.heldout.get("domain", []):
        body = document.text.partition("\n\n")[2]
        if body and document.topic:
            questions.append(Question(f"{wording}\n\n{_shorten(f'{document.title}: {body}')}", document.topic, "sections"))
    return questions, "domain", "sections of held-out listings"


BUILDERS: dict[Benchmark, Callable[[Material], tuple[list[Question], str, str]]] = {
    Benchmark.quiz: quiz,
    Benchmark.definition: definition,
    Benchmark.titles: titles,
    Benchmark.sections: sections,
}


def _items(questions: list[Question], group: str, seed: int) -> list[Item]:
    pools: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        pools[question.pool].add(question.answer)
    everything = set().union(*pools.values())
    unique = sorted({question.text: question for question in questions}.values(), key=lambda question: question.text)
    Random(seed).shuffle(unique)
    return [item for question in unique[:MAX_ITEMS] if (item := _item(question, pools[question.pool], everything, group, seed))]


def _item(question: Question, pool: set[str], everything: set[str], group: str, seed: int) -> Item | None:
    random = Random(f"{seed}:{question.text}")
    known = {question.answer.lower()}
    chosen: list[str] = []
    for candidates in (pool, everything):
        for candidate in random.sample(sorted(candidates), len(candidates)):
            if len(chosen) < CHOICES - 1 and candidate.lower() not in known:
                chosen.append(candidate)
                known.add(candidate.lower())
    if len(chosen) < CHOICES - 1:
        return None
    gold = random.randrange(CHOICES)
    chosen.insert(gold, question.answer)
    return {"question": question.text, "choices": chosen, "gold": gold, "group": group}


def _quiz_file(path: Path, ask: int, answer: int, wording: str) -> list[Question]:
    """Lines of colon-separated columns in latin-1; see `spell_out` for the patterns inside."""
    rows = [line.split(":") for line in path.read_text(encoding="latin-1").replace("\\\n", "").splitlines()]
    wide = [row for row in rows if len(row) > max(ask, answer)]
    return [Question(wording.format(spell_out(row[ask])), spell_out(row[answer]), path.name) for row in wide]


def spell_out(pattern: str) -> str:
    """One spelling of a quiz pattern: `{optional}` is kept, of `[a|b]` the last (plain) form, of `a|b` the first."""
    while (simpler := re.sub(r"\[(?:[^][{}]*\|)?([^][{}|]*)\]|\{([^][{}]*)\}", lambda m: m[1] if m[1] is not None else m[2], pattern)) != pattern:
        pattern = simpler
    return " ".join(pattern.split("|")[0].split())


def _shorten(text: str) -> str:
    """At most `MAX_QUESTION_CHARACTERS`, cut between words."""
    flat = " ".join(text.split())
    return flat if len(flat) <= MAX_QUESTION_CHARACTERS else flat[:MAX_QUESTION_CHARACTERS].rpartition(" ")[0] + " ..."
