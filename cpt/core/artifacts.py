"""Files that matter are written whole or not at all: temp, fsync, rename. And typed JSON artifacts on top of that."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Self

from cpt.core.errors import MissingInput, Problem, UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` atomically: a reader sees the old content or the new, never a part."""
    write_all({path: data})


def write_all(files: Mapping[Path, bytes]) -> None:
    """`write_bytes` for several files, which appear in this order; each folder is synced once, so a thousand run directories take a second."""
    temps = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temps[path], "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    for path, temp in temps.items():
        os.replace(temp, path)
    for folder in dict.fromkeys(path.parent for path in files):
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Sorted keys, so that equal values give equal files; paths, enums and numpy scalars become plain."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=1, sort_keys=True, default=_plain) + "\n"


def read_json(path: Path) -> Any:
    """Raises `MissingInput` when there is no such file, `UserError` when it is not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise MissingInput(path=path, why="an earlier stage leaves this file", fix="run that stage first") from None
    except json.JSONDecodeError as error:
        raise UserError(Problem(where=str(path), what=f"not JSON: {error}", why="the file is damaged", fix="run its stage again")) from None


def sha256_file(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hash of the canonical JSON text, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A truly frozen record that a stage leaves for the next as JSON; unknown or missing keys are refused at load."""

    def as_dict(self) -> dict[str, Any]:
        """Nested plain containers; enums and paths stay what they are."""
        return dataclasses.asdict(self)

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.as_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises `MissingInput`, or `UserError` when the content is not this record."""
        return cls._parse(path, read_json(path))

    @classmethod
    def _parse(cls, path: Path, value: Any) -> Self:
        try:
            return typing.cast(Self, _build(cls, value))
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(
                Problem(where=str(path), what=f"is not a {cls.__name__}: {error}", why="written by another version or edited", fix="run its stage again")
            ) from None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sealed(Artifact):
    """A record that carries the hash of all it says: a digit that turned on the disk would be good JSON."""

    def save(self, path: Path) -> None:
        """As `Artifact.save`, with the seal."""
        value = json.loads(json_text(self.as_dict()))
        write_json(path, value | {"seal": sha256_json(value)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """As `Artifact.load`. Raises `UserError` also when the seal is another."""
        value = read_json(path)
        if not isinstance(value, dict) or value.pop("seal", None) != sha256_json(value):
            raise UserError(Problem(where=str(path), what="is not what was written", why="its seal does not fit its content", fix="use another copy"))
        return cls._parse(path, value)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "item"):  # numpy scalars
        return value.item()
    raise TypeError(f"{type(value).__name__} does not belong in an artifact")


def _build(kind: Any, value: Any) -> Any:
    """JSON value -> `kind`: nested artifacts, lists, tuples, dicts, optionals, enums."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _build(next(a for a in args if a is not type(None)), value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        if unknown := set(value) - set(hints):
            raise KeyError(f"unknown {sorted(unknown)}")
        return kind(**{name: _build(hints[name], item) for name, item in value.items()})
    if origin in (list, tuple):
        return origin(_build(args[0], item) for item in value)
    if origin is dict:
        return {_build(args[0], k): _build(args[1], v) for k, v in value.items()}
    if kind is float and isinstance(value, int):
        return float(value)
    if isinstance(kind, type) and issubclass(kind, (Enum, Path)):
        return kind(value)
    return value
