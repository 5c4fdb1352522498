"""A structured record as text: the source's template, line by line.

`{title}`, `{attributes.brand}`: a field, also inside others. A line of which every field is missing or empty is left out, so that a listing without
a price says nothing about its price. Lists are joined by commas; a mapping is written as `key: value; key: value`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cpt.config.data import SourceConfig
from cpt.corpus.documents import Document
from cpt.corpus.formats import Bad, Record

FIELD = re.compile(r"\{([A-Za-z_][\w.-]*)\}")


class Serializer:
    """Of one source."""

    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        # On a command line Hydra leaves a spelled-out line break as it is; in YAML it has become one.
        self._lines = source.template.replace("\\n", "\n").split("\n") if source.template else []

    def document(self, record: Record) -> Document | Bad:
        """`Bad` when there is no text to make."""
        names = self._source.fields
        text = _render(self._lines, record.fields) if self._lines else look_up(record.fields, names.text)
        if not isinstance(text, str):
            return Bad(record.where, f'has no string "{names.text}"', str(dict(record.fields))[:200])
        if self._lines and not text.strip():
            return Bad(record.where, "has none of the fields that the template names", str(dict(record.fields))[:200])
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return Bad(record.where, f"holds half of a character: {error.reason}", ascii(text[max(0, error.start - 20) : error.end + 20]))
        written = {name: write(look_up(record.fields, getattr(names, name))) for name in ("id", "family", "title", "topic")}
        truth = look_up(record.fields, names.truth)
        return Document(id=written.pop("id") or record.where, text=text, **written, truth=None if truth is None else _is_true(truth))


def look_up(fields: Mapping[str, Any], path: str) -> Any:
    """The value at `a.b.c`, or None."""
    value: Any = fields
    for name in path.split(".") if path else ():
        value = value.get(name) if isinstance(value, Mapping) else None
    return None if value is fields else value


def _is_true(value: Any) -> bool:
    """As tables write it."""
    return value.strip().lower() in ("1", "true", "yes") if isinstance(value, str) else bool(value)


def write(value: Any) -> str:
    """A value as people write it; nothing for None and what is empty."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {text}" for key, item in value.items() if (text := write(item)))
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(write, value)))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _render(lines: Sequence[str], fields: Mapping[str, Any]) -> str:
    """Nothing when no field has a value."""
    found, said = list[str](), False
    for line in lines:
        values = {path: write(look_up(fields, path)) for path in FIELD.findall(line)}
        if any(values.values()) or not values:
            found.append(FIELD.sub(lambda match: values[match.group(1)], line).rstrip())  # noqa: B023 - called at once
        said |= any(values.values())
    return "\n".join(found).strip("\n") if said else ""
