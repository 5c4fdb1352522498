"""What is left of a list of patterns for strings of few characters: fewer to try, the same matches.

An alternative that must match a character outside of an alphabet matches nothing in a string of that alphabet, so leaving it out changes no match.
Whatever the analysis does not understand it keeps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from re import _constants as code  # type: ignore[attr-defined]  # the parser behind re.compile, of which nothing is public
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_FOLDED = frozenset(map(ord, "İıſK"))
"""Beyond ASCII, but equal to an ASCII letter where case is ignored."""


@dataclass(frozen=True, slots=True)
class Alphabet:
    """Code points, and maybe all beyond ASCII."""

    points: frozenset[int]
    beyond: bool = False

    def meets(self, low: int, high: int) -> bool:
        """Whether it has one of these, both ends included."""
        return (self.beyond and high >= 128) or any(low <= point <= high for point in self.points)

    def any_case(self) -> Alphabet:
        """What its characters equal where case is ignored."""
        return Alphabet(self.points | {ord(chr(point).swapcase()) for point in self.points} | _FOLDED, self.beyond)


def alphabet(characters: Iterable[str]) -> Alphabet:
    """Of ASCII characters."""
    return Alphabet(frozenset(map(ord, characters)))


def without(characters: str) -> Alphabet:
    """Of all characters but these ASCII ones."""
    return Alphabet(frozenset(range(128)).difference(map(ord, characters)), beyond=True)


def pruned(pieces: Iterable[str], given: Alphabet) -> re.Pattern[str] | None:
    """The alternatives that may match somewhere in a string of the alphabet, in their order; None where there are none."""
    left = [piece for piece in pieces if possible(piece, given)]
    return re.compile("|".join(left)) if left else None


def possible(pattern: str, given: Alphabet, flags: int = 0) -> bool:
    """Whether the pattern may match somewhere in a string of the alphabet. True is a maybe, False is sure."""
    parsed = parser.parse(pattern, flags)
    return _all(parsed, given.any_case() if parsed.state.flags & re.IGNORECASE else given)


def _all(sequence: Iterable[tuple[Any, Any]], given: Alphabet) -> bool:
    return all(_one(kind, argument, given) for kind, argument in sequence)


def _one(kind: Any, argument: Any, given: Alphabet) -> bool:
    if kind is code.LITERAL:
        return given.meets(argument, argument)
    if kind is code.IN:
        return _any_of(argument, given)
    if kind is code.BRANCH:
        return any(_all(part, given) for part in argument[1])
    if kind is code.SUBPATTERN:
        return bool(argument[1]) or _all(argument[3], given)  # with flags of its own: who knows
    if kind in (code.MAX_REPEAT, code.MIN_REPEAT):
        return argument[0] == 0 or _all(argument[2], given)
    if kind is code.ASSERT:
        return _all(argument[1], given)
    return True


def _any_of(items: Sequence[tuple[Any, Any]], given: Alphabet) -> bool:
    if any(kind not in (code.LITERAL, code.RANGE) for kind, _ in items):
        return True
    return any(given.meets(*((argument, argument) if kind is code.LITERAL else argument)) for kind, argument in items)
