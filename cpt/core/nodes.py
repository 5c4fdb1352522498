"""Names of nodes as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


def fold(names: Iterable[str]) -> str:
    """`node1 node2 node3 node5` -> `node[1-3,5]`, as SLURM writes it; a name without a number stays as it is. Sorted by number."""
    groups: dict[tuple[str, int], set[int]] = {}
    plain: list[str] = []
    for name in names:
        found = re.fullmatch(r"(.*?)(\d+)", name)
        if found is None:
            plain.append(name)
            continue
        width = len(found[2])
        groups.setdefault((found[1], width), set()).add(int(found[2]))
    folded = [f"{prefix}{_ranges(sorted(numbers), width)}" for (prefix, width), numbers in sorted(_unpadded(groups).items())]
    return ",".join([*sorted(set(plain)), *folded])


def _unpadded(groups: dict[tuple[str, int], set[int]]) -> dict[tuple[str, int], set[int]]:
    """`node9` and `node10` are one row; `node09` and `node9` are not."""
    merged: dict[tuple[str, int], set[int]] = {}
    for (prefix, width), numbers in groups.items():
        padded = any(len(str(number)) < width for number in numbers)
        merged.setdefault((prefix, width if padded else 0), set()).update(numbers)
    return merged


def _ranges(numbers: list[int], width: int) -> str:
    parts = [f"{first:0{width}d}" if first == last else f"{first:0{width}d}-{last:0{width}d}" for first, last in _runs(numbers)]
    return parts[0] if len(parts) == 1 and "-" not in parts[0] else f"[{','.join(parts)}]"


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (first, last) of each unbroken row."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last
