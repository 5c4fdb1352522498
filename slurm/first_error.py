"""What failed first: the last words and the logs of all ranks of an attempt, merged into one short text (`first_error.txt`).

When one of 480 ranks dies, 479 others say that they lost their peer. The cause is the earliest error that is not of that kind; else, when all
others complain of a peer, the rank that said nothing: killed from outside, or gone with its node. Logs are read from their end, a bounded
piece each.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cpt.config.seal import read_config
from cpt.core.artifacts import write_text
from cpt.core.attempts import AttemptEnd, Ending, RankRecord
from cpt.core.errors import UserError
from cpt.core.heartbeat import Beat, Phase, read_beats
from cpt.core.paths import AttemptPaths, RunPaths

_TAIL = 1 << 15
"""Bytes at the end of a log that are looked at."""

_LINES = 24
"""Of one error."""

_GROUPS = 12
"""Different errors of other ranks that are listed."""

_ERROR = re.compile(
    r"Traceback \(most recent call last\)|(?:Error|Exception)\b|NCCL WARN|CUDA error|\bKilled\b|Bus error|Segmentation fault|FATAL|Fatal|oom.kill"
)
_LAST_TRACE_LINE = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?$")
_STACK = re.compile(r"\(most recent call first\)")
_PEER = re.compile(
    r"lost peer|[Cc]onnection (?:reset|closed|refused|aborted)|ConnectionError|[Bb]roken pipe|remote process exited|ncclRemoteError|recvBytes|"
    r"Dist(?:Store|Network)Error|collective operation timeout|[Ss]ocket [Tt]imeout"
)
"""What a rank says when another one is gone."""

_VARIES = re.compile(r"0x[0-9a-f]+|\d+")
"""What differs between ranks that fail in the same way: ports, addresses, numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One rank's error. `time` in seconds since the epoch: by its own record, else of the last line in its log; the last line of `lines` names it."""

    rank: int
    host: str
    time: float
    signature: str
    lines: Sequence[str]
    recorded: bool = False
    """Written down by the rank itself, not guessed from its log."""

    @property
    def of_peer(self) -> bool:
        """Whether it only complains that another rank is gone."""
        return bool(_PEER.search(self.signature))


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstError:
    """The cause, and (how many ranks, what they said) of all others, most frequent first."""

    cause: Said
    others: Sequence[tuple[int, str]]

    def __str__(self) -> str:
        cause = self.cause
        head = f"rank {cause.rank} on {cause.host} at {time.strftime('%H:%M:%S', time.localtime(cause.time))}"
        rest = [f"{count} rank{'s' * (count > 1)}: {signature}" for count, signature in self.others[:_GROUPS]]
        more = [f"and {len(self.others) - _GROUPS} other errors"] if len(self.others) > _GROUPS else []
        return "\n".join([head, *cause.lines, *(["", "then", *rest, *more] if rest else [])]) + "\n"


def write(run: RunPaths, attempt: int) -> FirstError | None:
    """Find it and leave it as `first_error.txt`. None, and no file, when no rank left a trace."""
    if found := find(run, attempt):
        write_text(run.attempt(attempt).first_error, str(found))
    return found


def find(run: RunPaths, attempt: int) -> FirstError | None:
    """What failed first in an attempt whose ranks are gone, without the values of secrets."""
    paths = run.attempt(attempt)
    beats = {beat.rank: beat for beat in read_beats(paths)}
    said = _said(paths, beats)
    silent = [beat for rank, beat in beats.items() if rank not in said and beat.phase is not Phase.done and not paths.rank(rank).is_file()]
    end = AttemptEnd.load(paths.end) if paths.end.is_file() else None
    cause = _cause(list(said.values()), [_without_a_word(paths, beat) for beat in silent], end)
    if cause is None:
        return None
    others = [error.signature for rank, error in said.items() if rank != cause.rank]
    others += ["no last word" for beat in silent if beat.rank != cause.rank] if said else []
    found = FirstError(cause=cause, others=_grouped(others))
    return _redacted(found, _secrets(run))


def redact(text: str, secrets: Mapping[str, str]) -> str:
    """`text` with every value of `secrets` (name -> value) replaced by its `<NAME>`; longer values first, for one may hold another."""
    for name, value in sorted(secrets.items(), key=lambda item: -len(item[1])):
        if value:
            text = text.replace(value, f"<{name}>")
    return text


def _cause(said: Sequence[Said], silent: Sequence[Said], end: AttemptEnd | None) -> Said | None:
    own = [error for error in said if not error.of_peer]
    if own:
        return min(own, key=lambda error: (not error.recorded, error.time))
    blamed = [error for error in silent if end and (error.host in end.nodes or (end.ending is Ending.hang and error.rank == end.rank))]
    suspected = blamed or (silent if len(silent) < len(said) else [])
    return min(suspected or said, key=lambda error: error.time, default=None)


def _said(paths: AttemptPaths, beats: Mapping[int, Beat]) -> dict[int, Said]:
    """Rank -> its error, from its log and its record; a rank that ended in good order said none."""
    found: dict[int, Said] = {}
    for log in paths.root.glob("rank_*.log"):
        rank = log.stem.removeprefix("rank_")
        if rank.isdigit() and (lines := _error_lines(_tail(log))):
            host = beats[int(rank)].host if int(rank) in beats else "an unknown node"
            found[int(rank)] = Said(rank=int(rank), host=host, time=log.stat().st_mtime, signature=_signature(lines), lines=lines)
    for record in _records(paths):
        if record.outcome in ("crash", "fatal"):
            found[record.rank] = _with_record(record, found.get(record.rank))
        else:
            found.pop(record.rank, None)
    return dict(sorted(found.items()))


def _records(paths: AttemptPaths) -> Iterator[RankRecord]:
    for path in paths.root.glob("rank_*.json"):
        with suppress(UserError):  # a damaged one must not hide the others
            yield RankRecord.load(path)


def _with_record(record: RankRecord, logged: Said | None) -> Said:
    """The record knows host and time, the log has more lines."""
    said = f"{record.signature}: {record.message}" if record.signature and record.message else record.signature or record.message or "crashed"
    lines = logged.lines if logged else said.splitlines()[:_LINES]
    when = record.time or (logged.time if logged else 0.0)
    signature = logged.signature if logged else said.splitlines()[0]
    return Said(rank=record.rank, host=record.host, time=when, signature=signature, lines=lines, recorded=True)


def _without_a_word(paths: AttemptPaths, beat: Beat) -> Said:
    what = f"no last word after step {beat.step} ({beat.phase}): its node is gone, or it was stopped or killed from outside (out of memory?)"
    stack = _block(_tail(paths.log(beat.rank)), _STACK)
    return Said(rank=beat.rank, host=beat.host, time=beat.time, signature="no last word", lines=[what, *stack])


def _tail(log: Path) -> list[str]:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _error_lines(lines: Sequence[str]) -> list[str]:
    """The first thing in a log that looks like an error: a whole traceback, or a line and what is indented under it."""
    return _block(lines, _ERROR)


def _block(lines: Sequence[str], wanted: re.Pattern[str]) -> list[str]:
    first = next((number for number, line in enumerate(lines) if wanted.search(line)), None)
    if first is None:
        return []
    block = [lines[first], *_indented(lines[first + 1 :])]
    after = first + len(block)
    if "Traceback" in block[0] and after < len(lines) and _LAST_TRACE_LINE.match(lines[after]):
        block.append(lines[after])
    return block if len(block) <= _LINES else [block[0], "  ...", *block[-(_LINES - 2) :]]


def _indented(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith((" ", "\t")):
            return
        yield line


def _signature(lines: Sequence[str]) -> str:
    """A traceback is named by its last line, anything else by its first."""
    return (lines[-1] if "Traceback" in lines[0] else lines[0]).strip()


def _grouped(signatures: Iterable[str]) -> list[tuple[int, str]]:
    """Equal but for numbers is equal; shown as the first of them."""
    groups: dict[str, list[str]] = {}
    for signature in signatures:
        groups.setdefault(_VARIES.sub("#", signature), []).append(signature)
    return sorted(((len(group), group[0]) for group in groups.values()), key=lambda item: -item[0])


def _secrets(run: RunPaths) -> dict[str, str]:
    """Of the site's secrets those that this process knows; none when there is no config."""
    names = read_config(run.config).cluster.secrets if run.config.is_file() else []
    return {name: os.environ[name] for name in names if name in os.environ}


def _redacted(found: FirstError, secrets: Mapping[str, str]) -> FirstError:
    lines = [redact(line, secrets) for line in found.cause.lines]
    cause = replace(found.cause, lines=lines, signature=redact(found.cause.signature, secrets))
    return FirstError(cause=cause, others=[(count, redact(signature, secrets)) for count, signature in found.others])
