"""Manual pages in roff's `man` macros, stripped to plain paragraphs. Enough for text to train on, not for a pager."""

from __future__ import annotations

import re
import shlex

_PARAGRAPH = frozenset({"PP", "P", "LP", "sp", "HP", "TP", "TQ"})
_FONT = frozenset({"B", "I", "SM", "SB", "R"})
_ALTERNATING = frozenset({"BR", "BI", "IR", "RB", "RI", "IB"})
_SKIPPED_BLOCKS = {"TS": ".TE", "de": "..", "ig": "..", "EQ": ".EN", "de1": ".."}
_SPECIAL = {"aq": "'", "dq": '"', "bu": "•", "em": "—", "en": "–", "co": "©", "ha": "^", "ti": "~", "rs": "\\"}
_SPECIAL |= {"oq": "‘", "cq": "’", "lq": "“", "rq": "”"}
_NAME = r"(?:\(..|\[[^]]*\]|.)"
_ESCAPE = re.compile(
    r'\\(?:(?P<comment>["#].*)|f' + _NAME + r"|s[+-]?\d{1,2}|m\[[^]]*\]|[*n]" + _NAME + r"|[hvwz]'[^']*'|\[(?P<named>[^]]*)\]|\((?P<two>..)|(?P<one>.))"
)
_ONE = {"-": "-", "e": "\\", "\\": "\\", " ": " ", "~": " ", "0": " ", "t": "\t", "'": "'", "`": "`", ".": "."}


def strip_roff(source: str) -> str:
    """Headings and paragraphs of a `man` page; empty for `.so` includes and for mdoc pages."""
    lines = source.splitlines()
    if any(line.startswith((".so ", ".Dd", ".Sh ")) for line in lines):
        return ""
    blocks: list[list[str]] = [[]]
    until = ""
    for line in lines:
        if until:
            until = "" if line.startswith(until) else until
        elif line.startswith((".", "'")):
            until = _SKIPPED_BLOCKS.get(_macro(line), "")
            _request(line, blocks)
        elif line.strip():
            blocks[-1].append(_plain(line))
        else:
            blocks.append([])
    texts = (" ".join(" ".join(block).split()) for block in blocks)
    return "\n\n".join(text for text in texts if text)


def _macro(line: str) -> str:
    return line[1:].strip().split(" ")[0]


def _request(line: str, blocks: list[list[str]]) -> None:
    """Apply one macro line; unknown macros and conditionals carry no text."""
    macro = _macro(line)
    words = _arguments(line)
    if macro in ("SH", "SS"):
        blocks.extend([[" ".join(words)], []])
    elif macro in _PARAGRAPH:
        blocks.append([])
    elif macro == "IP":
        blocks.append(words[:1])
    elif macro in _FONT:
        blocks[-1].append(" ".join(words))
    elif macro in _ALTERNATING:
        blocks[-1].append("".join(words))


def _arguments(line: str) -> list[str]:
    """Arguments after the macro, quoted ones whole."""
    rest = line[1:].strip().partition(" ")[2]
    lexer = shlex.shlex(rest, posix=True)
    lexer.whitespace_split, lexer.quotes, lexer.escape, lexer.commenters = True, '"', "", ""
    try:
        return [_plain(word) for word in lexer]
    except ValueError:  # a quote that is never closed
        return [_plain(rest.replace('"', ""))]


def _plain(text: str) -> str:
    return _ESCAPE.sub(_replace, text)


def _replace(match: re.Match[str]) -> str:
    name = match["named"] or match["two"]
    if name is not None:
        if re.fullmatch(r"u[0-9A-F]{4,6}", name):
            return chr(int(name[1:], 16))
        return _SPECIAL.get(name, "")
    return _ONE.get(match["one"] or "", "")
