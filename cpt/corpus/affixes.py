"""What spaCy's tokenizer makes of one chunk between white space: its algorithm (3.8, `tokenizer.pyx`) with its own patterns and special cases, on strings.

spaCy's time goes into its objects, and into 130 patterns tried at each letter. Here a chunk of letters is one token unless it is a special case, and
one of ASCII without digits is looked at with the few patterns that can match in such a chunk. Whether that may be said of a language is found out
from its patterns (`patterns`). What becomes a special case only when affixes are put together again, `:` and `)`, is left to spaCy.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpt.corpus.patterns import Alphabet, alphabet, possible, pruned, without

_LETTERS = alphabet(string.ascii_letters)
_PLAIN = alphabet(string.ascii_letters + string.punctuation)
_ASCII = alphabet(map(chr, range(128)))
_is_plain = re.compile("[!-/:-~]+").fullmatch
"""Of the characters in `_PLAIN`."""

_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}

Tokens = tuple[str, ...]
Search = Callable[[str], re.Match[str] | None]


@dataclass(frozen=True, slots=True)
class Look:
    """What finds a prefix, a suffix, and what parts the rest."""

    prefix: Search
    suffix: Search
    infix: Callable[[str], Iterable[re.Match[str]]]


class Affixes:
    """Of one language: of its pipeline, the tokenizer's patterns and special cases."""

    def __init__(self, pipeline: Any) -> None:
        tokenizer = pipeline.tokenizer
        self._token, self._url = tokenizer.token_match or _never, tokenizer.url_match or _never
        self._dotted = not _may_match(tokenizer.url_match, without("."))
        self._any = Look(tokenizer.prefix_search or _never, tokenizer.suffix_search or _never, tokenizer.infix_finditer or _nowhere)
        pieces = _pieces(pipeline)
        self._plain, self._ascii = _look(pieces, _PLAIN), _look(pieces, _ASCII)
        whole = (tokenizer.token_match, tokenizer.url_match)
        self._letters = not any(_may_match(search, _LETTERS) for search in whole) and not any(possible(one, _LETTERS) for part in pieces for one in part)
        """Whether ASCII letters are one token, unless they are a special case."""
        self._special: dict[str, Tokens] = {}
        self._together: dict[str, list[Tokens]] = {}
        """A token -> itself and the tokens behind it that are a special case when they are put together."""
        self._read_special(tokenizer)

    def is_token(self, chunk: str) -> bool:
        """Whether that is sure at a glance."""
        return self._letters and chunk.isascii() and chunk.isalpha() and chunk not in self._special

    def tokens(self, chunk: str) -> tuple[Tokens, bool]:
        """(its tokens, whether spaCy would put some of them together, maybe, which depends on the chunks beside it)."""
        found = self._split(chunk, self._special)
        return found, not self._together.keys().isdisjoint(found) and self._are_together(found)

    def _split(self, text: str, special: Mapping[str, Tokens]) -> Tokens:
        """Affixes are taken off, a pair at a time, until none is found or the rest is a special case."""
        look = self._any if not text.isascii() else self._plain if _is_plain(text) else self._ascii
        before, after, size = list[str](), list[str](), 0
        while text and len(text) != size:
            if text in special:
                break
            if self._letters and text.isascii() and text.isalpha():
                return (*before, text, *reversed(after))
            if self._token(text):
                break
            size = len(text)
            start = _length(look.prefix(text))
            if start and text[start:] in special:
                before.append(text[:start])
                text = text[start:]
                break
            stop = size - _length(look.suffix(text[start:]))
            if stop < size and text[:stop] in special:
                after.append(text[stop:])
                text = text[:stop]
                break
            before += [text[:start]] * (start > 0)
            after += [text[stop:]] * (stop < size)
            text = text[start:stop]
        return (*before, *self._inside(text, look, special), *reversed(after))

    def _inside(self, text: str, look: Look, special: Mapping[str, Tokens]) -> Sequence[str]:
        if not text or text in special:
            return special.get(text, ())
        if self._token(text) or (("." in text or not self._dotted) and self._url(text)):
            return (text,)
        found, begun = list[str](), 0
        for match in look.infix(text):
            start, stop = match.span()
            if start:  # one right at the start is none
                found += filter(None, (text[begun:start], text[start:stop]))
                begun = stop
        return [*found, text[begun:]] if begun < len(text) else found

    def _are_together(self, found: Tokens) -> bool:
        return any(found[place : place + len(tokens)] == tokens for place, first in enumerate(found) for tokens in self._together.get(first, ()))

    def _read_special(self, tokenizer: Any) -> None:
        from spacy.attrs import ORTH, intify_attrs

        for text, parts in tokenizer.rules.items():
            chunks = text.split()
            if len(chunks) == 1:
                self._special[text] = tuple(intify_attrs(dict(part), _do_deprecated=True)[ORTH] for part in parts)
            apart = tuple(token for chunk in chunks for token in self._split(chunk, {}))
            if len(chunks) > 1:
                apart = (max(apart, key=len),)  # of a special case over several chunks, one token is enough to be careful
            affixed = not tokenizer.faster_heuristics or any((self._any.prefix(text), self._any.suffix(text), *self._any.infix(text), " " in text))
            if apart and affixed and apart != self._special.get(text):
                self._together.setdefault(apart[0], []).append(apart)


def _pieces(pipeline: Any) -> tuple[list[str], list[str], list[str]]:
    """Alternatives of prefix, suffix and infix; a pattern that is not made of the language's own list is one."""
    defaults, tokenizer = pipeline.Defaults, pipeline.tokenizer
    return (
        _alternatives([f"^{one}" for one in defaults.prefixes or () if one.strip()], tokenizer.prefix_search),
        _alternatives([f"{one}$" for one in defaults.suffixes or () if one.strip()], tokenizer.suffix_search),
        _alternatives([one for one in defaults.infixes or () if one.strip()], tokenizer.infix_finditer),
    )


def _alternatives(pieces: list[str], search: Any) -> list[str]:
    if search is None:
        return []
    pattern: re.Pattern[str] = search.__self__
    if pattern.flags != re.UNICODE:
        return [f"(?{''.join(letter for letter, flag in _FLAGS.items() if pattern.flags & flag)}:{pattern.pattern})"]
    return pieces if "|".join(pieces) == pattern.pattern else [pattern.pattern]


def _look(pieces: tuple[list[str], list[str], list[str]], given: Alphabet) -> Look:
    prefix, suffix, infix = (pruned(part, given) for part in pieces)
    return Look(prefix.search if prefix else _never, suffix.search if suffix else _never, infix.finditer if infix else _nowhere)


def _may_match(search: Any, given: Alphabet) -> bool:
    return search is not None and possible(search.__self__.pattern, given, search.__self__.flags)


def _length(found: re.Match[str] | None) -> int:
    return found.end() - found.start() if found else 0


def _never(_: str) -> None:
    """Finds nothing."""


def _nowhere(_: str) -> Iterable[re.Match[str]]:
    return ()
