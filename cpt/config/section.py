"""`Section`: the small base of every config dataclass. Changeable while it is composed, sealed before anyone uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cpt.core.errors import Problem


class Sealed(AttributeError):
    """Somebody tried to change a sealed config: a bug of ours, never of the user."""


class Section:
    """Base of all sections. Frozen dataclasses do not work as Hydra schemas, hence the seal.

    A subclass is `@dataclass(kw_only=True, slots=True)`; what is wrong with its own values it says in `problems`.
    """

    __slots__ = ("_sealed",)

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_sealed", False):
            raise Sealed(f"{type(self).__name__}.{name} is sealed; compose a new config instead")
        object.__setattr__(self, name, value)

    def problems(self) -> Iterator[Problem]:
        """What is wrong inside this section; `where` is relative to it. Cross-section rules live in `config.validate`."""
        return iter(())

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Child sections with their names, also those inside dictionaries."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Section):
                yield field.name, value
            elif isinstance(value, dict):
                yield from ((f"{field.name}.{key}", item) for key, item in value.items() if isinstance(item, Section))

    def seal(self) -> None:
        """Refuse every later change, here and below."""
        for _, child in self.sections():
            child.seal()
        object.__setattr__(self, "_sealed", True)


def positive(section: Section, *names: str) -> Iterator[Problem]:
    """A problem for each named field that is not greater than zero."""
    for name in names:
        value = getattr(section, name)
        if not value > 0:
            yield Problem(where=name, what=f"is {value}", why="must be greater than zero", fix=f"{name}=<a positive number>")


def fraction(section: Section, *names: str) -> Iterator[Problem]:
    """A problem for each named field outside 0 to 1."""
    for name in names:
        value = getattr(section, name)
        if not 0 <= value <= 1:
            yield Problem(where=name, what=f"is {value}", why="is a share, from 0 to 1", fix=f"{name}=<0 to 1>")
