"""What a model is measured on is found in training text, whole or in part, and nothing else is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt.core.errors import MissingInput, UserError
from cpt.corpus import overlap
from cpt.corpus.overlap import Counted, Detector, Hit, References, WordHashes, hash_grams, read_items, read_questions, split_words

Found = tuple[int, Fraction] | None


def sentence(random: Random, words: int) -> list[str]:
    return ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 9))) for _ in range(words)]


def references(items: Sequence[str], ngram: int = 8) -> References:
    found = References(ngram)
    for number, item in enumerate(items):
        found.add("set", str(number), item)
    return found


def detector(items: Sequence[str], min_share: float = 0.5, ngram: int = 8) -> Detector:
    return Detector(references(items, ngram), min_share)


@pytest.fixture(scope="module")
def items() -> list[list[str]]:
    random = Random(0)
    return [sentence(random, random.randint(8, 60)) for _ in range(200)]


@pytest.fixture(scope="module")
def planted(items: list[list[str]]) -> Detector:
    return detector([" ".join(item) for item in items])


@pytest.mark.parametrize(
    "copy",
    [
        " ".join,
        lambda words: " ".join(words).upper() + "!",
        lambda words: "«" + ",\n\t".join(words) + "»",
        lambda words: "_".join(words),
        lambda words: " ".join(chr(ord(word[0]) + 0xFEE0) + word[1:] for word in words),  # first letters as wide as Chinese ones
        lambda words: " ".join(f"{word[:1]}\u00ad{word[1:]}" for word in words),  # soft hyphens
    ],
    ids=["verbatim", "case", "punctuation", "underscores", "width", "unseen"],
)
def test_every_planted_item_is_found(items: list[list[str]], planted: Detector, copy: type) -> None:
    random = Random(1)
    texts = [" ".join([*sentence(random, 30), copy(item), *sentence(random, 30)]) for item in items]
    assert planted.find(texts) == [Hit("set", str(number), 1.0) for number in range(len(items))]


def test_what_shares_words_but_no_phrases_is_not_found(items: list[list[str]], planted: Detector) -> None:
    random = Random(2)
    paraphrased = [" ".join(sentence(random, 1)[0] if place % 2 else word for place, word in enumerate(item)) for item in items]
    shuffled = [" ".join(random.sample(item, len(item))) for item in items]
    unrelated = [" ".join(sentence(random, 100)) for _ in items]
    assert planted.find(paraphrased + shuffled + unrelated) == [None] * 600


def test_an_item_inside_a_long_text_is_found(items: list[list[str]], planted: Detector) -> None:
    random = Random(3)
    text = " ".join(sentence(random, 11_000) + items[7] + sentence(random, 9_000))
    assert planted.find([text, text[: len(text) // 4]]) == [Hit("set", "7", 1.0), None]


def test_a_phrase_that_all_items_share_convicts_nobody() -> None:
    random = Random(4)
    phrase = sentence(random, 20)
    found = detector([" ".join(phrase + sentence(random, 40)) for _ in range(50)])
    assert found.find([" ".join(phrase + sentence(random, 40)) for _ in range(50)]) == [None] * 50


def test_items_that_are_all_alike_are_counted_part_by_part(monkeypatch: pytest.MonkeyPatch, items: list[list[str]]) -> None:
    text = " ".join(max(items, key=len))
    monkeypatch.setattr(overlap, "_ASKED", 100)
    assert detector([text] * 50).find([text, text + " more", "more"]) == [Hit("set", "0", 1.0), Hit("set", "0", 1.0), None]


def test_ngrams_do_not_cross_documents() -> None:
    words = "one two three four five six seven eight nine ten"
    found = detector([words], min_share=0.1)
    assert found.find([words[:18], words[18:], "", words]) == [None, None, None, Hit("set", "0", 1.0)]


def test_an_ngram_counts_once_in_item_and_document() -> None:
    found = detector(["a b a b a b c d"], ngram=2)  # ab, ba, bc, cd
    assert found.find(["b c b c b c"]) == [None]
    assert found.find(["a b c"]) == [Hit("set", "0", 0.5)]


def test_texts_without_spaces_are_looked_for_by_character() -> None:
    chinese, thai = "北京是中华人民共和国的首都，位于华北平原北部。", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย"
    found = detector([chinese, thai])
    other = "上海是中国最大的城市之一，也是重要的港口。"
    assert found.find([f"{other}{chinese}{other}", f"ข่าว{thai}", other]) == [Hit("set", "0", 1.0), Hit("set", "1", 1.0), None]


def test_words() -> None:
    assert split_words("Don’t _STOP_ at 3.14, Straße हिन्दी") == ["don", "t", "stop", "at", "3", "14", "strasse", "हिन्दी"]
    assert split_words("東京タワーABC หมู 한국어") == ["東", "京", "タ", "ワ", "ー", "abc", "ห", "มู", "한국어"]


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_split_as_all_text_is(text: str) -> None:
    assert split_words(text) == split_words(f"{text} é")[:-1]


@given(st.text())
def test_chunks_hash_as_the_whole_text_does(text: str) -> None:
    assert WordHashes().of(text) == b"".join(map(xxhash.xxh3_64_digest, split_words(text)))


def test_grams_hash_alike_when_their_words_are() -> None:
    """Of few words there are many that differ in their order alone."""
    hashes = np.array([0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0], dtype=np.uint64)
    words = Random(6).choices(range(3), k=5000)
    for ngram in range(1, 15):
        found = hash_grams(hashes[words], ngram).tolist()
        grams = [tuple(words[first : first + ngram]) for first in range(len(words) - ngram + 1)]
        assert len(found) == len(grams)
        assert len(set(found)) == len(set(grams)) == len(set(zip(found, grams, strict=True)))


def slow(items: Sequence[str], text: str, min_share: Fraction, ngram: int) -> Found:
    """(number of the worst item, its share) as the definition says it."""

    def grams(of: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[一-鿿]|[^\W_一-鿿]+", of.lower())
        return {tuple(words[first : first + ngram]) for first in range(len(words) - ngram + 1)}

    worst: Found = None
    for number, item in enumerate(items):
        if wanted := grams(item):
            share = Fraction(len(wanted & grams(text)), len(wanted))
            if share >= min_share and (worst is None or share > worst[1]):
                worst = number, share
    return worst


texts = st.lists(st.sampled_from(["a", "B,", "b", "c.", "d-a", "中", "文b"]), max_size=40).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(texts, max_size=8),
    st.lists(texts, max_size=6),
    st.sampled_from(["0.1", "0.3", "0.35", "0.5", "0.6", "0.7", "1"]),
    st.integers(1, 5),
    st.booleans(),
)
def test_shares_are_those_of_the_definition(items: list[str], documents: list[str], min_share: str, ngram: int, batched: bool) -> None:
    found = detector(items, float(min_share), ngram)
    hits = found.find(documents) if batched else [hit for document in documents for hit in found.find([document])]
    long = [number for number, item in enumerate(items) if len(split_words(item)) >= ngram]
    assert [name for _, name in references(items, ngram).items] == [str(number) for number in long]
    expected = [slow(items, document, Fraction(min_share), ngram) for document in documents]
    assert hits == [None if one is None else Hit("set", str(one[0]), float(one[1])) for one in expected]


@pytest.mark.parametrize("min_share", ["0.1", "0.3", "0.55", "0.7"])
def test_a_share_that_no_fraction_holds_is_enough(min_share: str) -> None:
    """0.1 * 30 is more than 3."""
    for size in range(20, 220, 20):
        words = [f"w{number}" for number in range(size)]
        needed = int(Fraction(min_share) * size)
        found = detector([" ".join(words)], float(min_share), ngram=1)
        assert found.find([" ".join(words[:needed]), " ".join(words[: needed - 1])]) == [Hit("set", "0", needed / size), None]


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch, items: list[list[str]], planted: Detector) -> None:
    random = Random(5)
    documents = [" ".join(random.choice(items)[: random.randint(1, 60)] + random.choice(items)) for _ in range(100)] + [""] * 3
    random.shuffle(documents)
    at_once = planted.find(documents)
    assert [hit for document in documents for hit in planted.find([document])] == at_once
    monkeypatch.setattr(overlap, "_BATCH", 100)
    assert planted.find(documents) == at_once
    assert sum(hit is None for hit in at_once) == 3


def test_long_chunks_and_words_are_not_remembered() -> None:
    hashes = WordHashes()
    hashes.of("中文" * 1000 + " " + "x" * 1000 + " short")
    assert max(map(len, [*hashes._words, *hashes._chunks])) < 100


def test_items_that_are_too_short_are_counted() -> None:
    found = References(8)
    for name, text in [("quiz", "What is the capital of Kenya?"), ("quiz", ""), ("long", "a b c d e f g h"), ("quiz", "a b c d e f g h i")]:
        found.add(name, "1", text)
    assert found.sets == {"quiz": Counted(items=3, short=2), "long": Counted(items=1, short=0)}
    assert Detector(found, 0.5).find(["a b c d e f g h"]) == [Hit("long", "1", 1.0)]


def test_what_several_items_of_a_set_say_is_no_evidence() -> None:
    """A license at the end of four of five held-out pages: other pages have it, and hold none of them."""
    random = Random(5)
    license = " ".join(sentence(random, 40))
    found = References(8)
    pages = [" ".join(sentence(random, 20)) for _ in range(4)]
    for number, page in enumerate(pages):
        found.add("held-out", str(number), f"{page} {license}")
    found.add("held-out", "bare", license)
    found.add("quiz", "0", pages[0])  # another set says the same: that is no form of words
    plain = found.without_common(3)
    training = [f"{' '.join(sentence(random, 200))} {license}", pages[0], f"{pages[1]} something else", license]
    assert [hit and (hit.set, hit.item) for hit in Detector(found, 0.5).find(training)] == [("held-out", "bare"), ("quiz", "0"), None, ("held-out", "bare")]
    assert [hit and (hit.set, hit.item) for hit in Detector(plain, 0.5).find(training)] == [None, ("quiz", "0"), ("held-out", "1"), None]
    assert plain.sets == {"held-out": Counted(items=5, short=0, common=1), "quiz": Counted(items=1)}
    assert found.without_common(5).arrays()[0].tolist() == found.arrays()[0].tolist()


def test_saved_and_loaded(tmp_path: Path, items: list[list[str]], planted: Detector) -> None:
    texts = [" ".join(item) for item in items]
    for name in ("one.npz", "two.npz"):
        references([*texts, "too short"]).save(tmp_path / name)
    loaded = References.load(tmp_path / "one.npz")
    loaded.save(tmp_path / "three.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes() == (tmp_path / "three.npz").read_bytes()
    assert (loaded.ngram, loaded.sets) == (8, {"set": Counted(items=201, short=1)})
    assert Detector(loaded, 0.5).find(texts) == planted.find(texts)


def test_saved_today_as_yesterday(tmp_path: Path) -> None:
    references(["a b c d e f g h"]).save(tmp_path / "some.npz")
    assert b"\x00\x00\x21\x00" in (tmp_path / "some.npz").read_bytes()[:16]  # midnight of 1 January 1980, in each entry's head


@pytest.mark.parametrize("texts", [[], ["too short"]])
def test_nothing_to_look_for(tmp_path: Path, texts: list[str]) -> None:
    references(texts).save(tmp_path / "none.npz")
    found = Detector(References.load(tmp_path / "none.npz"), 0.5)
    assert found.find(["a text of some words, but nothing that is known", ""]) == [None, None]
    assert found.find([]) == []


def test_a_file_that_is_damaged_or_missing(tmp_path: Path, items: list[list[str]]) -> None:
    path = tmp_path / "some.npz"
    references([" ".join(item) for item in items]).save(path)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    for damaged in (content, content[:500], b"", b"something else"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            References.load(path)
    with pytest.raises(MissingInput):
        References.load(tmp_path / "missing.npz")


def write_lines(path: Path, *records: object) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_items_of_a_benchmark(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "some.jsonl",
        {"id": 0, "prompt": "b", "question": "a"},
        {"question": " ", "prompt": "c"},
        {"question": None, "doc": {"text": "d"}, "id": "x"},
    )
    assert list(read_items(path, ["question", "prompt", "doc.text"])) == [("0", "a"), (f"{path}:2", "c"), ("x", "d")]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"query": "a"}, "has none of question, prompt"),
        ({"question": ["a", "b"]}, "question is no text"),
        ([], "is no JSON object"),
    ],
)
def test_items_that_cannot_be_looked_for(tmp_path: Path, record: object, said: str) -> None:
    path = write_lines(tmp_path / "some.jsonl", {"question": "a"}, record)
    with pytest.raises(UserError) as caught:
        list(read_items(path, ["question", "prompt"]))
    problem = caught.value.problems[0]
    assert (problem.where, problem.what) == (f"{path}:2", said)
    if isinstance(record, dict):
        assert problem.why.startswith(f"it has {next(iter(record))} (")


def test_an_empty_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        list(read_items(write_lines(tmp_path / "some.jsonl"), ["question"]))


def test_questions_of_our_own_sets_come_without_their_wording(tmp_path: Path) -> None:
    path = tmp_path / "titles.jsonl"
    write_lines(path, *({"question": text, "choices": [], "gold": 0} for text in ["Which title fits?\n\nA kettle.\n\nRed.", "Which word means: red?"]))
    assert list(read_questions(path)) == [("titles.jsonl:1", "A kettle.\n\nRed."), ("titles.jsonl:2", "Which word means: red?")]
