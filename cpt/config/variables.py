"""Variables of the environment as configs name them: what is a name, and what announces a secret, whose value belongs in no file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cpt.core.errors import Problem

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"

_SECRET = re.compile(r"(^|[_-])(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)([_-]|$)|API_?KEY|[_-]KEY$", re.IGNORECASE)
"""TOKENIZERS_PARALLELISM is none."""

_POINTER = re.compile(r"[_-](PATH|FILE|DIR)$", re.IGNORECASE)
"""Says where a secret lies; that is none."""


def variable_problems(names: Iterable[str], where: str, group: str) -> Iterator[Problem]:
    """For `group.where`: names that no shell takes, and such as announce a secret."""
    for name in names:
        if not re.fullmatch(_NAME, name):
            yield Problem(where=where, what=repr(name), why="is not a name of a variable", fix=f"+{group}.{where}.<NAME>=<value>")
    yield from secret_problems(names, where)


def secret_problems(names: Iterable[str], where: str) -> Iterator[Problem]:
    """For each name that announces a secret. Its value is never repeated."""
    for name in names:
        if _SECRET.search(name) and not _POINTER.search(name):
            why = "scripts and configs are files that others read; ranks take it from the environment of whoever submits"
            yield Problem(where=where, what=f"{name} looks like a secret", why=why, fix=f"cluster.secrets=[{name}]")


def assigned(lines: Iterable[str]) -> Iterator[str]:
    """Names that shell lines give a value of their own: `NAME=value`, not `NAME=$...`, which takes it from elsewhere."""
    for line in lines:
        yield from re.findall(rf"\b({_NAME})=(?![\"']?[$`])", line)


def is_name(name: str) -> bool:
    """Whether a shell takes it as the name of a variable."""
    return re.fullmatch(_NAME, name) is not None
