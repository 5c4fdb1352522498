"""Words and sentences as datatrove's filters count them, more than ten times as fast.

spaCy's tokenizer looks at each chunk between white space on its own. So what becomes of a chunk is found without spaCy (`affixes`) and remembered:
the words of a text are those of its chunks. Of a few chunks the words depend on what is beside them; then spaCy is asked about the line. The memory
is bounded, and forgets everything at once when it is full. (datatrove loses the word IS_ALPHA, over which spaCy's pipeline stumbles; here it stays.)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import Any, Protocol

from datatrove.utils.text import NUMBERS_PATTERN, PUNCTUATION_TRANS, simplify_text
from datatrove.utils.word_tokenizers import SpaCyTokenizer, load_word_tokenizer

from cpt.core.errors import Problem, UserError
from cpt.corpus.affixes import Affixes

_REMEMBERED = 500_000
"""Chunks, about 100 bytes each."""
_WHOLE = ("ja", "th", "vi", "zh")
"""Languages in which spaCy is given a segmenter that looks beyond a chunk."""
_SPACE = re.compile(r"(\s+)")
_WORD, _END, _PUNCTUATION = "w", ".", ","
"""Kinds of words for who counts sentences."""


class Words(Protocol):
    """Words of one language."""

    def split(self, text: str) -> list[str]:
        """As `datatrove.utils.text.split_into_words`."""

    def simplified(self, text: str) -> list[str]:
        """Words of the text in lower case, without punctuation and accents, numbers as 0: what MinHash looks at."""

    def sentences(self, line: str) -> int:
        """How many `datatrove.utils.text.split_into_sentences` finds."""


class Memory[Value](dict[str, Value]):
    """Asks `learn` once for each key."""

    def __init__(self, learn: Callable[[str], Value]) -> None:
        super().__init__()
        self._learn = learn

    def __missing__(self, key: str) -> Value:
        if len(self) >= _REMEMBERED:
            self.clear()
        value = self[key] = self._learn(key)
        return value


class ChunkWords:
    """For languages whose spaCy tokenizer looks at chunks."""

    def __init__(self, tokenizer: SpaCyTokenizer) -> None:
        from spacy.lang.lex_attrs import is_punct

        self._is_punctuation = is_punct
        self._pipeline = tokenizer.tokenizer
        self._pipeline.vocab.lex_attr_getters = {}  # shapes, cases and more of each word, which nobody here asks for
        self._ends = self._pipeline.get_pipe("sentencizer").punct_chars
        self._affixes = Affixes(self._pipeline)
        self._beside: set[str] = set()
        """Chunks whose words may depend on the chunks beside them: one in 700 of those known."""
        self._words: Memory[tuple[str, ...]] = Memory(self._learn_words)
        self._simplified: Memory[tuple[str, ...]] = Memory(self._learn_simplified)
        self._kinds: Memory[str] = Memory(self._learn_kinds)

    def split(self, text: str) -> list[str]:
        """As `Words`."""
        chunks = text.split()
        found = list(chain.from_iterable(map(self._words.__getitem__, chunks)))
        return found if self._beside.isdisjoint(chunks) else list(chain.from_iterable(map(self._line, text.splitlines())))

    def simplified(self, text: str) -> list[str]:
        """As `Words`."""
        chunks = text.split()
        found = list(chain.from_iterable(map(self._simplified.__getitem__, chunks)))
        return found if self._beside.isdisjoint(chunks) else self.split(simplify_text(text))

    def sentences(self, line: str) -> int:
        """As `Words`: one begins with the first word that is no punctuation after a mark that ends one. White space counts as a word unless it is one space."""
        chunks = line.split()
        kinds = "".join(map(self._kinds.__getitem__, chunks if " ".join(chunks) == line else _SPACE.split(line)))
        if not self._beside.isdisjoint(chunks):
            kinds = "".join(map(self._kind, self._asked(line)))
        return 1 + kinds.replace(_PUNCTUATION, "").count(_END + _WORD)

    def _kind(self, word: str) -> str:
        return _END if word in self._ends else _PUNCTUATION if self._is_punctuation(word) else _WORD

    def _learn_kinds(self, chunk: str) -> str:
        return "".join(map(self._kind, self._words[chunk])) if chunk.strip() else _WORD * (chunk not in ("", " "))

    def _learn_words(self, chunk: str) -> tuple[str, ...]:
        if self._affixes.is_token(chunk):
            return (chunk,)
        words, beside = self._affixes.tokens(chunk)
        if beside:
            self._beside.add(chunk)
        return words

    def _learn_simplified(self, chunk: str) -> tuple[str, ...]:
        simple = _simple_ascii(chunk) if chunk.isascii() else simplify_text(chunk).split()
        words = tuple(chain.from_iterable(map(self._words.__getitem__, simple)))
        if not self._beside.isdisjoint(simple):
            self._beside.add(chunk)
        return words

    def _line(self, line: str) -> list[str]:
        """Nothing reaches over the end of a line."""
        chunks = line.split()
        if self._beside.isdisjoint(chunks):
            return list(chain.from_iterable(map(self._words.__getitem__, chunks)))
        return [word for token in self._asked(line) if (word := token.strip())]

    def _asked(self, line: str) -> list[str]:
        """spaCy's words, white space among them."""
        with self._pipeline.memory_zone():  # without one it keeps every word that it has ever seen
            return [token.text for token in self._pipeline.tokenizer(line)]


def _simple_ascii(chunk: str) -> list[str]:
    """`simplify_text`, split, without what it does about accents."""
    words: list[str] = NUMBERS_PATTERN.sub("0", chunk.lower()).translate(PUNCTUATION_TRANS).split()
    return words


class WholeWords:
    """For languages whose tokenizer looks at the whole text; as fast as that is."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def split(self, text: str) -> list[str]:
        """As `Words`."""
        return list(self._tokenizer.word_tokenize(text))

    def simplified(self, text: str) -> list[str]:
        """As `Words`."""
        return self.split(simplify_text(text))

    def sentences(self, line: str) -> int:
        """As `Words`."""
        return len(self._tokenizer.span_tokenize(line))


@cache
def words_of(language: str) -> Words:
    """`language` as datatrove spells it: en, de, fr, ...; `multilingual` splits as all of them at once. Raises `UserError` for one that it does not know."""
    import_spacy()
    try:
        tokenizer = SpaCyTokenizer("xx") if language == "multilingual" else load_word_tokenizer(language)
    except ValueError as error:
        why, fix = f"there is no word splitter for it: {error}", "language=en, de, fr, ... or multilingual"
        raise UserError(Problem(where="corpus.sources.<name>.language", what=f"is {language!r}", why=why, fix=fix)) from None
    if isinstance(tokenizer, SpaCyTokenizer) and tokenizer.language not in _WHOLE:
        return ChunkWords(SpaCyTokenizer(tokenizer.language, tokenizer.config))  # of its own: datatrove's opens zones, too
    return WholeWords(tokenizer)


def import_spacy() -> None:
    """Without torch, which it takes in wherever that is installed: 0.5 GB a process and seconds of its start, for nothing that is used here."""
    if "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment] # an import of it fails
        try:
            import spacy  # noqa: F401
        finally:
            del sys.modules["torch"]
