"""Words and sentences as datatrove's filters count them, ten times as fast.

spaCy's tokenizer looks at each chunk between white space on its own. So what it says of a chunk is remembered: the words of a text are those
of its chunks. The memory is bounded, and forgets everything at once when it is full. (datatrove loses the word IS_ALPHA, over which spaCy's
pipeline stumbles; here it stays.)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from itertools import chain
from typing import Any, Protocol

from datatrove.utils.text import simplify_text
from datatrove.utils.word_tokenizers import SpaCyTokenizer, load_word_tokenizer

from cpt.core.errors import Problem, UserError

_REMEMBERED = 500_000
"""Chunks, about 100 bytes each."""
_ZONE = 20_000
"""Chunks that share a zone of memory; opening one takes as long as a chunk."""
_WHOLE = ("ja", "th", "vi", "zh")
"""Languages in which spaCy is given a segmenter that looks beyond a chunk."""


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
        from spacy.lang.lex_attrs import is_punct  # late: spaCy brings torch with it, where that is installed

        self._is_punctuation = is_punct
        self._pipeline = tokenizer.tokenizer
        self._tokenizer = self._pipeline.tokenizer
        self._ends = self._pipeline.get_pipe("sentencizer").punct_chars
        self._zone, self._asked = ExitStack(), 0
        self._words: Memory[tuple[str, ...]] = Memory(self._learn_words)
        self._simplified: Memory[tuple[str, ...]] = Memory(self._learn_simplified)
        self._marks: Memory[tuple[tuple[bool, bool], ...]] = Memory(self._learn_marks)

    def split(self, text: str) -> list[str]:
        """As `Words`."""
        return list(chain.from_iterable(map(self._words.__getitem__, text.split())))

    def simplified(self, text: str) -> list[str]:
        """As `Words`."""
        return list(chain.from_iterable(map(self._simplified.__getitem__, text.split())))

    def sentences(self, line: str) -> int:
        """As `Words`: a sentence begins with the first word that is no punctuation after a mark that ends one."""
        found, ended = 1, False
        for ends, punctuation in chain.from_iterable(map(self._marks.__getitem__, line.split())):
            if ends:
                ended = True
            elif ended and not punctuation:
                found, ended = found + 1, False
        return found

    def _learn_words(self, chunk: str) -> tuple[str, ...]:
        return tuple(text for token in self._tokens(chunk) if (text := token.text.strip()))

    def _learn_simplified(self, chunk: str) -> tuple[str, ...]:
        return tuple(self.split(simplify_text(chunk)))

    def _learn_marks(self, chunk: str) -> tuple[tuple[bool, bool], ...]:
        """(ends a sentence, is punctuation) of each word."""
        return tuple((word in self._ends, self._is_punctuation(word)) for word in self._words[chunk])

    def _tokens(self, chunk: str) -> Any:
        """In a zone of spaCy's memory that ends now and then: else it keeps every word that it has ever seen."""
        if self._asked % _ZONE == 0:
            self._zone.close()
            self._zone.enter_context(self._pipeline.memory_zone())
        self._asked += 1
        return self._tokenizer(chunk)


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
    try:
        tokenizer = SpaCyTokenizer("xx") if language == "multilingual" else load_word_tokenizer(language)
    except ValueError as error:
        why, fix = f"there is no word splitter for it: {error}", "language=en, de, fr, ... or multilingual"
        raise UserError(Problem(where="corpus.sources.<name>.language", what=f"is {language!r}", why=why, fix=fix)) from None
    if isinstance(tokenizer, SpaCyTokenizer) and tokenizer.language not in _WHOLE:
        return ChunkWords(SpaCyTokenizer(tokenizer.language, tokenizer.config))  # of its own: datatrove's opens zones, too
    return WholeWords(tokenizer)
