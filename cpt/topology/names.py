"""Names of nodes and devices: SLURM's bracketed lists spelled out, and the order in which people count."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cpt.core.errors import Problem, UserError

_LIMIT = 100_000
"""Names in one list; SLURM itself stops at 65,536 nodes."""


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key: `mlx5_2` before `mlx5_10`, `node9` before `node10`."""
    return tuple((1, int(part), part) if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name) if part)


def expand(text: str) -> list[str]:
    """`node[1-3,05],gpu7` -> `node1 node2 node3 node05 gpu7`, in the order written. Raises `UserError` for what is no such list."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\]?)+", text.strip()):
        names.extend(_spelled(part, text))
        if len(names) > _LIMIT:
            raise _not_a_list(text)
    return names


def _spelled(part: str, text: str) -> Iterator[str]:
    """All names of one part, which may hold several brackets: `rack[1-2]node[1-4]`."""
    head, bracket, rest = part.partition("[")
    inside, closed, tail = rest.partition("]")
    if not bracket:
        if "]" in part:
            raise _not_a_list(text)
        yield part
        return
    if not closed:
        raise _not_a_list(text)
    ends = list(_spelled(tail, text)) if tail else [""]
    yield from (f"{head}{number}{end}" for item in inside.split(",") for number in _numbers(item, text) for end in ends)


def _numbers(item: str, text: str) -> Iterator[str]:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
    if found is None:
        raise _not_a_list(text)
    first, last = found[1], found[2] or found[1]
    if not 0 <= int(last) - int(first) < _LIMIT:
        raise _not_a_list(text)
    yield from (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))


def _not_a_list(text: str) -> UserError:
    return UserError(Problem(where="nodes", what=repr(text[:80]), why="is not a list of names as SLURM writes it", fix="node[1-8,12],gpu7"))
