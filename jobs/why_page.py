"""A run's last failure in words: what failed first, what was done about it, and where that led."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cpt.core import units
from cpt.core.attempts import AttemptBegin, AttemptEnd, Ending
from cpt.core.errors import Problem, UserError
from cpt.core.nodes import fold
from jobs.status_facts import RunFacts
from slurm import first_error
from slurm.standing import OVER, State

_NO_FAILURES = (Ending.done, Ending.stopped, Ending.preempted, Ending.time_limit)
"""Endings that are in good order."""

Lifetime = tuple[AttemptBegin, AttemptEnd | None]


def explain(facts: RunFacts, number: int | None) -> Iterator[str]:
    """Lines about attempt `number`, or about the last that failed. Raises `UserError` when there is no such attempt."""
    known = facts.standing
    failed = _asked(facts, number) if number is not None else _last_failure(facts)
    yield f"{facts.run.root.name}: {known.state}" + ("" if known.state is State.running else f", {known.why}")
    if failed is None:
        yield f"no attempt of {len(known.attempts)} has failed"
        yield from _last_recovery(facts)
        return
    if number is None and known.state in (State.running, State.done):
        yield "healthy now" + (f", step {facts.progress.step:,} of {facts.steps:,}" if facts.progress else "") + "; the last failure was:"
    yield ""
    yield from _failure(facts, failed)
    yield from _cause(facts, failed)
    yield from _after(facts, failed)
    yield from _suspects(facts)


def _asked(facts: RunFacts, number: int) -> Lifetime:
    found = next((lifetime for lifetime in facts.standing.attempts if lifetime[0].number == number), None)
    if found is None:
        there = ", ".join(str(begin.number) for begin, _ in facts.standing.attempts) or "none"
        raise UserError(Problem(where="--attempt", what=f"is {number}", why=f"attempts of this run: {there}", fix=f"cpt status {facts.run.root}"))
    return found


def _last_failure(facts: RunFacts) -> Lifetime | None:
    """An attempt without a last word is one, unless it still runs."""
    return next((lifetime for lifetime in reversed(facts.standing.attempts) if not _runs(facts, lifetime) and not _in_order(lifetime[1])), None)


def _runs(facts: RunFacts, attempt: Lifetime) -> bool:
    return attempt[1] is None and attempt == facts.last and facts.standing.state not in OVER


def _in_order(end: AttemptEnd | None) -> bool:
    return end is not None and end.ending in _NO_FAILURES


def _failure(facts: RunFacts, attempt: Lifetime) -> Iterator[str]:
    begin, end = attempt
    lasted = f"attempt {begin.number} on {fold(begin.nodes)}"
    if _runs(facts, attempt):
        yield f"{lasted} runs"
    elif end is None:
        yield f"{lasted} never said how it ended" + (f"; SLURM's accounts say {facts.accounts[-1].state}" if facts.accounts else "")
    else:
        yield f"{lasted} ended after {units.duration(end.time - begin.time)}, at {_clock(end.time)}: {end.ending}"
        yield f"  {end.message}"
        if end.nodes:
            yield f"  blamed: {fold(end.nodes)}"


def _cause(facts: RunFacts, attempt: Lifetime) -> Iterator[str]:
    """What the supervisor left, else what can be found now; a running attempt has no first error."""
    paths = facts.run.attempt(attempt[0].number)
    if paths.first_error.is_file():
        text = paths.first_error.read_text()
    else:
        text = "" if _runs(facts, attempt) or _in_order(attempt[1]) else str(first_error.find(facts.run, paths.number) or "")
    if text:
        yield ""
        yield f"what failed first (logs: {paths.root}/rank_<r>.log):"
        yield from (f"  {line}" for line in text.splitlines())


def _after(facts: RunFacts, attempt: Lifetime) -> Iterator[str]:
    """What was decided, and how the next attempt came to its first step."""
    begin, end = attempt
    later = next((following for following, _ in facts.standing.attempts if following.number > begin.number), None)
    if end is None and later is None:
        return
    yield ""
    decided = f"what was done: {end.action}" if end else "nobody was left to decide what to do"
    if later is None:
        yield f"{decided}, nothing has followed yet" + (f"; next: cpt resume {facts.run.root} --check" if facts.standing.state in OVER else "")
        return
    yield f"{decided} -> attempt {later.number} on {fold(later.nodes)}" + (f", by {later.path}" if end is None or later.path != end.action else "")
    yield from _recovered(facts, later.number)


def _recovered(facts: RunFacts, number: int) -> Iterator[str]:
    recovery = next(recovery for recovery in facts.recoveries if recovery.attempt == number)
    back = "it has done no step yet" if recovery.seconds is None else f"from the last step before to its first: {units.duration(recovery.seconds)}"
    yield f"  {back}; went on from step {recovery.step:,}, {recovery.lost_steps} step(s) computed again"


def _last_recovery(facts: RunFacts) -> Iterator[str]:
    if facts.recoveries:
        last = facts.recoveries[-1]
        yield f"the last interruption: {last.ending}, attempt {last.attempt} came by {last.path}"
        yield from _recovered(facts, last.attempt)


def _suspects(facts: RunFacts) -> Iterator[str]:
    """For the cluster's admin."""
    suspects = facts.standing.suspects
    if suspects.blamed or suspects.excluded:
        yield ""
        yield "suspect nodes:"
    for node, what in suspects.blamed.items():
        yield f"  {node}: {'; '.join(what)}" + (" -> kept out" if node in suspects.excluded else "")
    for node, why in suspects.excluded.items():
        if node not in suspects.blamed:
            yield f"  {node}: {why} -> kept out"


def _clock(seconds: float) -> str:
    return time.strftime("%d %b %H:%M:%S", time.localtime(seconds))
