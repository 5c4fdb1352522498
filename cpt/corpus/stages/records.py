"""What each unit of a stage says of itself when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cpt.core.artifacts import Artifact, read_json, sha256_file
from cpt.core.errors import UserError
from cpt.core.manifest import ShardRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord(Artifact):
    """A file beside a unit's record, when it was whole."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitRecord(Artifact):
    """Written last; a unit whose files are not there any more, or of another size, is not done."""

    files: dict[str, FileRecord]
    """By name."""
    seconds: float
    """Of one core."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example(Artifact):
    """A document to look at."""

    draw: int
    """The smallest draws of all shards are shown: the same ones each time."""
    id: str
    text: str
    """How it begins."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectRecord(UnitRecord):
    """documents == kept + sum(dropped); bytes are UTF-8 text."""

    documents: int
    bytes: int
    unreadable: int
    kept: int
    kept_bytes: int
    dropped: dict[str, int]
    """Reason -> documents."""
    dropped_bytes: dict[str, int]
    scrubbed: dict[str, int]
    """Kind -> replacements, in what stays."""
    lengths: dict[str, int]
    """Binary logarithm of the bytes of a document that stays, rounded down -> documents."""
    examples: dict[str, list[Example]]
    """Reason, or `kept`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnRecord(UnitRecord):
    """How many documents of each side it learned from."""

    positives: int
    negatives: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CountRecord(UnitRecord):
    """`count`: documents scored, or edges found."""

    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair(Artifact):
    """A removed near-duplicate and one that it shares a band with: the first of their cluster, or one that went for the same first."""

    draw: int
    removed: str
    kept: str
    """`source/id`, and how each begins."""
    removed_text: str
    kept_text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DecideRecord(UnitRecord):
    """Fates by source, and what came of them."""

    fates: dict[str, dict[str, int]]
    """Source -> fate -> documents."""
    cuts: dict[str, float]
    """Source -> lowest score that stays."""
    clusters: dict[str, int]
    """Documents in a cluster of near-duplicates -> clusters."""
    pairs: list[Pair]
    benchmarks: dict[str, int]
    """Name -> items."""
    origins: dict[str, str]
    """Benchmark -> what it was made from."""
    references: dict[str, int]
    """Set that is looked for in training text -> items that can be."""
    too_short: dict[str, int]
    """Set -> items with fewer words than an n-gram has."""
    common: dict[str, int]
    """Set -> items that say nothing but what others say, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contaminated(Artifact):
    """A document that held an item of a set, and was left out."""

    draw: int
    id: str
    set: str
    item: str
    share: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRecord(UnitRecord):
    """A token file, and what was left out of it because it holds what the model is measured on."""

    shard: ShardRecord
    contaminated: dict[str, int]
    """Set -> documents."""
    items: dict[str, list[str]] = field(default_factory=dict)
    """Set -> items that were found."""
    examples: list[Contaminated] = field(default_factory=list)


def is_done[Kind: UnitRecord](record: Path, kind: type[Kind]) -> bool:
    """Whether the record and all its files are there, of the sizes that they had."""
    if not record.is_file():
        return False
    try:
        files = kind._parse(record, read_json(record)).files
    except UserError:
        return False
    return all(_size(record.parent / name) == file.bytes for name, file in files.items())


def describe(paths: Sequence[Path]) -> dict[str, FileRecord]:
    """For `UnitRecord.files`."""
    return {path.name: FileRecord(bytes=path.stat().st_size, sha256=sha256_file(path)) for path in paths}


def merged(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Sums by key."""
    total: dict[str, int] = {}
    for one in counts:
        for name, number in one.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))


def reasons(dropped: Mapping[str, int], most: int = 100) -> str:
    """`12 near_duplicate, 3 unreadable`: the `most` frequent first, the others in one number."""
    ordered = sorted(((number, reason) for reason, number in dropped.items() if number), key=lambda one: (-one[0], one[1]))
    said = [f"{number} {reason}" for number, reason in ordered[:most]]
    return ", ".join([*said, *([f"{sum(number for number, _ in ordered[most:])} for other reasons"] if ordered[most:] else [])])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
