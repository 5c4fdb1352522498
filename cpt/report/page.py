"""HTML, and nothing about runs. Whatever comes from a file goes through `text`, so a corpus cannot inject markup."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Html:
    """Markup that is already safe."""

    markup: str


Cell = str | Html
EMPTY = Html("")


def text(value: object) -> str:
    """Escaped."""
    return value.markup if isinstance(value, Html) else html.escape(str(value))


def signed(value: float, digits: int = 1) -> str:
    """With its sign, and a real minus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def join(parts: Iterable[Html]) -> Html:
    """One after the other."""
    return Html("\n".join(part.markup for part in parts))


def section(title: str, *parts: Html, lead: Cell = "") -> Html:
    """A headed part of the page; `lead` is a sentence that says how to read it."""
    head = f'<p class="lead">{text(lead)}</p>' if lead else ""
    return Html(f"<section><h2>{text(title)}</h2>{head}{join(parts).markup}</section>")


def not_run(what: str, command: str) -> Html:
    """The place of something that no stage has left yet."""
    return Html(f'<p class="absent">{text(what)}: not run. <code>{text(command)}</code></p>')


def paragraph(value: Cell, kind: str = "") -> Html:
    """`kind` is a CSS class."""
    return Html(f'<p class="{text(kind)}">{text(value)}</p>')


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], words: Sequence[int] = (0,), marked: Sequence[int] = (), wide: bool = False) -> Html:
    """Columns in `words` are text on the left, all others numbers on the right; rows in `marked` stand out."""
    head = "".join(f'<th class="{_side(i, words)}">{text(name)}</th>' for i, name in enumerate(columns))
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(f'<td class="{_side(i, words)}">{text(cell)}</td>' for i, cell in enumerate(row))
        lines.append(f'<tr class="{"marked" if number in marked else ""}">{cells}</tr>')
    kind = "wide" if wide or len(columns) > 4 else "narrow"
    return Html(f'<div class="{kind}"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>')


def _side(index: int, words: Sequence[int]) -> str:
    return "word" if index in words else "number"


def pairs(rows: Iterable[tuple[str, Cell]]) -> Html:
    """A list of names and values."""
    return Html("<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows) + "</dl>")


def picture(png: bytes, caption: str) -> Html:
    """The picture inside the page; the caption is also its alternative text."""
    data = base64.b64encode(png).decode()
    return Html(f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{data}"><figcaption>{text(caption)}</figcaption></figure>')


def code(lines: str) -> Html:
    """A block to copy from."""
    return Html(f"<pre><code>{text(lines)}</code></pre>")


def folded(title: str, content: Html) -> Html:
    """Closed until asked for; open on paper."""
    return Html(f"<details><summary>{text(title)}</summary>{content.markup}</details>")


@dataclass(frozen=True, slots=True)
class Card:
    """One headline number. `tone`: good, bad or plain."""

    label: str
    value: str
    detail: str
    tone: str = "plain"


def cards(items: Iterable[Card]) -> Html:
    """Headline numbers side by side."""
    boxes = (
        f'<div class="card {text(card.tone)}"><div class="label">{text(card.label)}</div><div class="value">{text(card.value)}</div>'
        f'<div class="detail">{text(card.detail)}</div></div>'
        for card in items
    )
    return Html(f'<div class="cards">{"".join(boxes)}</div>')


def warnings(items: Sequence[str]) -> Html:
    """Before everything else."""
    if not items:
        return EMPTY
    return Html('<aside class="warnings"><h2>Read this first</h2><ul>' + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul></aside>")


def document(title: str, subtitle: Cell, body: Html) -> str:
    """The whole page: no script, no font, no link to anything outside."""
    style = (Path(__file__).parent / "style.css").read_text()
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{style}</style></head>\n"
        f'<body><main><header><h1>{text(title)}</h1><p class="subtitle">{text(subtitle)}</p></header>\n{body.markup}\n</main></body></html>\n'
    )
