"""What `cpt bench recall` plants: copies of a known likeness, and passages that hold a known share of a question's n-grams. Pure functions of texts and a seed.

Both are measured here by sets of tuples of words, without any hash, so that what the pipeline finds by hashes is compared with what is there.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice

from cpt.config.data import DecontaminateConfig
from cpt.corpus.documents import Document
from cpt.corpus.overlap import split_words

LEAST_WORDS = 60
"""Of a document that is copied, cut from, or hidden in."""
EXACT = "exact copy"
VERBATIM = "question word by word"
DRESSED = "question in other case and punctuation"
PART = "as many of its words as just count"
LESS = "one word less than that"
HALF = "half of its words changed"
_QUESTION = (12, 40)
"""Words."""
_CLOSE = 0.02
"""How far a copy's likeness may be from what it should be: in a text of 60 words each changed word takes 5 of 56 n-grams with it."""
_TRIES = 12

Grams = set[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Plant:
    """A document to plant. `kind` says what it is, `of` what it is made from: a document's id, or a question's."""

    kind: str
    of: str
    text: str

    @property
    def id(self) -> str:
        """Says what it is, too."""
        return f"{self.kind}: {self.of}"


def grams(words: Sequence[str], ngram: int) -> Grams:
    """Distinct n-grams."""
    return set(zip(*(words[first:] for first in range(ngram)), strict=False))


def likeness(first: Grams, second: Grams) -> float:
    """Jaccard's: of all n-grams of both, the share that both have."""
    return len(first & second) / max(1, len(first | second))


class Copies:
    """Copies of texts. `simplify` gives the words that MinHash looks at, `ngram` of them in a row."""

    def __init__(self, seed: int, vocabulary: Sequence[str], simplify: Callable[[str], list[str]], ngram: int) -> None:
        self._random, self._vocabulary, self._simplify, self._ngram = random.Random(seed), vocabulary, simplify, ngram

    def grams(self, text: str) -> Grams:
        """As MinHash sees it."""
        return grams(self._simplify(text), self._ngram)

    def near(self, text: str, wanted: float) -> str | None:
        """Words are replaced, each place as likely as another, until the likeness is what is wanted; None when it cannot be met."""
        original = self.grams(text)
        for _ in range(_TRIES):
            pieces = re.split(r"(\s+)", text)
            places = [place for place, piece in enumerate(pieces) if any(map(str.isalpha, piece))]
            self._random.shuffle(places)
            words = dict(zip(places, self._random.choices(self._vocabulary, k=len(places)), strict=True))

            def changed(number: int, pieces: list[str] = pieces, places: list[int] = places, words: dict[int, str] = words) -> str:
                new = {place: words[place] for place in places[:number]}
                return "".join(new.get(place, piece) for place, piece in enumerate(pieces))

            least = _first(lambda number: likeness(original, self.grams(changed(number))) <= wanted, len(places))
            for copy in map(changed, (least, max(0, least - 1))):
                if abs(likeness(original, self.grams(copy)) - wanted) <= _CLOSE:
                    return copy
        return None

    def exact(self, text: str) -> str | None:
        """The same up to case and white space: half of the words in other case, and more space between them. None for letters that have no way back."""
        pieces = re.split(r"( +)", text)
        changed = "".join(piece * 2 if piece.isspace() else piece.swapcase() if self._random.random() < 0.5 else piece for piece in pieces)
        same = changed.lower().split() == text.lower().split() and changed != text
        return changed if same else None


def _first(holds: Callable[[int], bool], most: int) -> int:
    """The smallest number at which it holds, by halving; `most` when there is none below."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


class Items:
    """Texts that training must not hold, by set, and exactly how much of each some document does. What more than `max_items` of a set say is no evidence."""

    def __init__(self, rules: DecontaminateConfig, sets: Iterable[Iterable[str]]) -> None:
        self._ngram = rules.ngram
        self._owners: dict[tuple[str, ...], list[int]] = {}
        common, number = Grams(), count()
        for texts in sets:
            counted = Counter[tuple[str, ...]]()
            for item, text in zip(number, texts):  # noqa: B905 - numbers do not end
                found = grams(split_words(text), self._ngram)
                counted.update(found)
                for gram in found:
                    self._owners.setdefault(gram, []).append(item)
            common |= {gram for gram, items in counted.items() if items > rules.max_items}
        self._owners = {gram: items for gram, items in self._owners.items() if gram not in common}
        self._sizes = Counter(chain.from_iterable(self._owners.values()))

    def most(self, text: str) -> float:
        """The largest share of any item's n-grams that the text holds."""
        held = Counter(item for gram in grams(split_words(text), self._ngram) for item in self._owners.get(gram, ()))
        return max((number / self._sizes[item] for item, number in held.items()), default=0.0)


def alone(questions: Mapping[str, str], documents: Iterable[Document], ngram: int) -> dict[str, str]:
    """Those of which no other document holds a single n-gram; named by the ids of the documents that they are cut from."""
    asked: dict[tuple[str, ...], set[str]] = {}
    for id, question in questions.items():
        for gram in grams(split_words(question), ngram):
            asked.setdefault(gram, set()).add(id)
    said = set[str]()
    for document in documents:
        held = asked.keys() & grams(split_words(document.text), ngram)
        said |= set[str]().union(*(asked[gram] for gram in held)) - {document.id}
    return {id: question for id, question in questions.items() if id not in said}


class Passages:
    """Questions, and documents that hide what is made of them."""

    def __init__(self, seed: int, vocabulary: Sequence[str], rules: DecontaminateConfig) -> None:
        self._random, self._vocabulary, self._rules = random.Random(seed), vocabulary, rules
        self._make = {VERBATIM: lambda text: text, DRESSED: self._dressed, PART: self._part, LESS: lambda text: self._part(text, 1), HALF: self._half}

    def question(self, text: str) -> str | None:
        """Words in a row, of which no n-gram comes twice; None when none is found."""
        chunks, rules = text.split(), self._rules
        for _ in range(_TRIES):
            wanted, start, taken = self._random.randint(max(_QUESTION[0], rules.ngram + 4), _QUESTION[1]), self._random.randrange(len(chunks)), list[str]()
            for chunk in chunks[start:]:
                taken.append(chunk)
                words = split_words(" ".join(taken))
                if len(words) >= wanted:
                    break
            if wanted <= len(words) <= _QUESTION[1] and len(grams(words, rules.ngram)) == len(words) - rules.ngram + 1:
                return " ".join(taken)
        return None

    def plants(self, name: str, question: str, hosts: Iterable[Document]) -> list[Plant]:
        """One of each kind that holds what its kind should hold, each in a host of its own."""
        made = [Plant(kind, name, _hide(host.text, make(question))) for (kind, make), host in zip(self._make.items(), hosts, strict=True)]
        return [plant for plant in made if (self.share(plant.text, question) >= self._rules.min_share) is counts(plant.kind)]

    def share(self, text: str, question: str) -> float:
        """Of the question's distinct n-grams, those that the text holds."""
        asked = grams(split_words(question), self._rules.ngram)
        return len(asked & grams(split_words(text), self._rules.ngram)) / len(asked)

    def _dressed(self, question: str) -> str:
        between = self._random.choices([" ", ", ", "; ", " - ", "... ", ":\n"], k=len(question.split()))
        return "".join(f"{word}{mark}" for word, mark in zip(question.upper().split(), between, strict=True))

    def _part(self, question: str, less: int = 0) -> str:
        words = split_words(question)
        enough = _first(lambda number: self.share(" ".join(words[:number]), question) >= self._rules.min_share, len(words))
        return " ".join(words[: enough - less])

    def _half(self, question: str) -> str:
        words = question.split()
        for place in self._random.sample(range(len(words)), len(words) // 2):
            words[place] = self._random.choice(self._vocabulary)
        return " ".join(words)


def plant_copies(copies: Copies, originals: Iterable[Document], number: int, likenesses: Sequence[float]) -> list[Plant]:
    """`number` exact copies, and as many of each likeness, each of another document; fewer where documents run out."""
    left = iter(originals)
    made = ((original.id, copies.exact(original.text)) for original in left)
    found = [Plant(EXACT, id, copy) for id, copy in islice(((id, copy) for id, copy in made if copy), number)]
    for wanted in likenesses:
        near = ((original.id, copies.near(original.text, wanted)) for original in left)
        found += [Plant(f"copy, likeness {wanted:.2f}", id, copy) for id, copy in islice(((id, copy) for id, copy in near if copy), number)]
    return found


def plant_questions(passages: Passages, ngram: int, held: Sequence[Document], others: Iterable[Document], plants: list[Plant]) -> dict[str, str]:
    """Id -> question, which no other document says a part of; what is made of each goes to `plants`, each in a held-back document of its own."""
    cut = {source.id: question for source in held[::6] if (question := passages.question(source.text))}
    found = alone(cut, others, ngram)
    for place, source in enumerate(held[::6]):
        if source.id in found:
            plants += passages.plants(source.id, found[source.id], held[6 * place + 1 : 6 * place + 6])
    return found


def counts(kind: str) -> bool:
    """Whether text of this kind must be found."""
    return kind in (VERBATIM, DRESSED, PART)


def _hide(host: str, passage: str) -> str:
    """As a paragraph in the middle."""
    lines = host.split("\n")
    place = (len(lines) + 1) // 2
    return "\n".join([*lines[:place], "", passage, "", *lines[place:]])
