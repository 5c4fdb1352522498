"""A run's facts as a page for a terminal: what it does now, how far it is, what it cost, and every attempt."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cpt.core import units
from cpt.core.attempts import AttemptBegin, AttemptEnd
from cpt.core.heartbeat import Phase
from cpt.core.nodes import fold
from cpt.tracking.goodput import Kind
from cpt.tracking.journal import EventRow
from cpt.tracking.progress import Recovery
from jobs.status_facts import DEAD, FINE, RunFacts
from slurm.standing import OVER, State

ATTEMPTS = 12
"""The last ones are listed; the journal has all."""

_COLORS = {FINE: "green", DEAD: "red"}


def page(facts: RunFacts) -> RenderableType:
    """Everything about one run."""
    known = facts.standing
    color = _COLORS.get(facts.exit_code, "yellow")
    word = f"{known.state} (degraded)" if facts.concerns else str(known.state)
    said = f"attempt {facts.last[0].number}" if known.queue and facts.last else known.why
    head = Text.assemble((facts.run.root.name, "bold"), "  ", (word, f"bold {color}"), f"  {said}")
    blocks: list[RenderableType] = [head, *(Text(f"  ! {concern}", style=color) for concern in facts.concerns), Text(), _pairs(_rows(facts))]
    if known.attempts:
        blocks += [Text(), _goodput(facts), Text(), _attempts(facts)]
    if facts.exit_code == DEAD:
        blocks += [Text(f"\nnext: cpt why {facts.run.root}; cpt resume {facts.run.root} --check", style="dim")]
    return Group(*blocks)


def _pairs(rows: Iterator[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), value)
    return table


def _rows(facts: RunFacts) -> Iterator[tuple[str, str]]:
    known, now = facts.standing, facts.progress
    if known.queue:
        yield "job", known.queue
    elif known.job:
        yield "job", f"{known.job}, no longer in the queue{_last_account(facts)}"
    if now:
        yield "progress", f"step {now.step:,} of {facts.steps:,} ({now.step / facts.steps:.1%}), {units.count(now.consumed_tokens)} tokens, loss {now.loss:.4f}"
        yield "speed", f"{units.count(now.tokens_per_second)} tokens/s, {units.duration(now.step_seconds)} a step with saves and evaluations"
    elif known.attempts:
        yield "progress", f"no step of {facts.steps:,} done yet"
    if facts.seconds_left is not None:
        ready = time.strftime("%a %d %b %H:%M", time.localtime(facts.now + facts.seconds_left))
        yield "time left", f"{units.duration(facts.seconds_left)} without interruption" + (f", ready {ready}" if known.state is State.running else "")
    if facts.working:
        yield "ranks", _ranks(facts)
    yield "checkpoint", _checkpoint(facts)
    if fast := known.fast_checkpoint:
        yield "fast checkpoint", f"step {fast:,} on the nodes' own disks{_behind(facts, fast)}"
    if facts.anomalies:
        yield "anomalies", _anomalies(facts.anomalies)
    if facts.last:
        yield from _machines(facts, facts.last[0])
    yield from _judged(facts)


def _ranks(facts: RunFacts) -> str:
    """What they are doing now, and who has been quiet for longest."""
    beats = facts.working
    doing = Counter((str(beat.phase), beat.step) for beat in beats)
    shown = ", ".join(f"{count} {phase} after step {step:,}" for (phase, step), count in doing.most_common(4))
    more = f", and {len(doing) - 4} other phases" if len(doing) > 4 else ""
    oldest = min(beats, key=lambda beat: beat.time)
    return f"{len(beats)}: {shown}{more}; oldest heartbeat {units.duration(max(0.0, facts.now - oldest.time))} (rank {oldest.rank} on {oldest.host})"


def _checkpoint(facts: RunFacts) -> str:
    step = facts.standing.checkpoint
    if not step:
        return "none yet" if facts.standing.attempts else "none"
    age = f", {units.duration(facts.now - facts.checkpoint_time)} ago" if facts.checkpoint_time else ""
    return f"step {step:,}{age}{_behind(facts, step)}"


def _behind(facts: RunFacts, step: int) -> str:
    """What would be computed again."""
    return f", {facts.progress.step - step} steps since" if facts.progress and facts.progress.step > step else ""


def _anomalies(events: Sequence[EventRow]) -> str:
    """How many of each kind and what was done, and the last one with the sequences that did most for it."""
    counts = Counter(f"{event.fields['kind']} ({event.fields['action']})" for event in events)
    last = events[-1].fields
    start, stop = last["samples"]
    worst = ", ".join(f"{one['sample']} of {one['source']}" for one in last["worst"][:3])
    what = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{what}; last at update {last['step']:,}: {last['why']}; samples {start} to {stop - 1}, highest loss {worst}"


def _machines(facts: RunFacts, begin: AttemptBegin) -> Iterator[tuple[str, str]]:
    spares = f", spare {fold(begin.spares)}" if begin.spares else ""
    yield "nodes", f"{len(begin.nodes)}: {fold(begin.nodes)}{spares}"
    yield "cost", _cost(facts)
    if facts.standing.state not in OVER:
        yield "limits", _limits(facts)


def _limits(facts: RunFacts) -> str:
    """What is taken for a lost node and for a hang."""
    phases: dict[float, list[str]] = {}
    for phase, seconds in facts.standing.limits.items():
        if phase is not Phase.done:
            phases.setdefault(seconds, []).append(phase)
    hang = ", ".join(f"{units.duration(seconds)} ({', '.join(names)})" for seconds, names in phases.items())
    return f"a node may be lost after {facts.standing.config.slurm.silence_seconds:g} s of silence; no progress is a hang after {hang}"


def _cost(facts: RunFacts) -> str:
    cost = facts.cost
    hours = f"{cost.gpu_hours:,.2f} GPU-hours" if cost.gpu_hours else f"{cost.node_hours:,.2f} node-hours without GPUs"
    money = f", {cost.money:,.2f} at {cost.price:g} each" if cost.price and cost.gpu_hours else ""
    accounts = f"; SLURM's accounts say {cost.accounted:,.2f} node-hours" if cost.accounted is not None else ""
    return f"{hours} so far{money}, spares and restarts included{accounts}"


def _judged(facts: RunFacts) -> Iterator[tuple[str, str]]:
    """Nodes under suspicion, for the admin; those kept out stand among the concerns while the run goes on."""
    suspects = facts.standing.suspects
    blamed = [f"{node} ({'; '.join(what)})" for node, what in suspects.blamed.items() if node not in suspects.excluded]
    if blamed:
        yield "suspects", ", ".join(blamed)
    if suspects.excluded:
        yield "kept out", ", ".join(f"{node} ({why})" for node, why in suspects.excluded.items())


def _goodput(facts: RunFacts) -> Table:
    """One column a kind; they add up to the time since the submission."""
    kinds = [kind for kind in Kind if facts.goodput.milliseconds[kind] or kind is Kind.useful]
    table = Table("goodput", *map(str, kinds), "in all", box=None, title_justify="left", header_style="dim")
    table.add_row(
        f"{facts.goodput.share(Kind.useful):.1%}", *(units.duration(facts.goodput.seconds(kind)) for kind in kinds), units.duration(facts.goodput.wall / 1000)
    )
    table.add_row("", *(f"{facts.goodput.share(kind):.1%}" for kind in kinds), "since submission")
    return table


def _attempts(facts: RunFacts) -> Table:
    """How each came to be and ended; `back in`: from the last step before it to its own first."""
    table = Table(
        "attempt", "came by", "back in", "begin", "lasted", "nodes", "steps", "redone", "ended", "then", "what was said", box=None, header_style="dim"
    )
    known = facts.standing.attempts
    back = {recovery.attempt: recovery for recovery in facts.recoveries}
    if len(known) > ATTEMPTS:
        table.add_row("...", *[""] * 9, f"{len(known) - ATTEMPTS} earlier")
    for begin, end in known[-ATTEMPTS:]:
        table.add_row(*_attempt(facts, begin, end, back.get(begin.number)))
    return table


def _attempt(facts: RunFacts, begin: AttemptBegin, end: AttemptEnd | None, back: Recovery | None) -> Sequence[str]:
    running = end is None and begin is facts.standing.attempts[-1][0] and facts.standing.state is State.running
    until = end.time if end else facts.now
    return (
        str(begin.number),
        begin.path,
        units.duration(back.seconds) if back and back.seconds is not None else "",
        time.strftime("%d %b %H:%M:%S", time.localtime(begin.time)),
        units.duration(until - begin.time) if end or running else "",
        fold(begin.nodes),
        f"{begin.step:,} -> {end.step:,}" if end else f"{begin.step:,} ->",
        str(back.lost_steps) if back and back.lost_steps else "",
        str(end.ending) if end else "running" if running else "no word",
        str(end.action) if end else "",
        end.message if end else "",
    )


def _last_account(facts: RunFacts) -> str:
    """What SLURM remembers of the job, where it keeps accounts."""
    return f"; its accounts say {facts.accounts[-1].state}" if facts.accounts else ""
