"""What `cpt status` and `cpt why` know: a run's standing (files, queue) and what its journal says, brought together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from cpt.config.running import Scheduler
from cpt.core.attempts import AttemptBegin, AttemptEnd
from cpt.core.heartbeat import Beat, Phase
from cpt.core.nodes import fold
from cpt.core.paths import RunPaths
from cpt.tracking.goodput import Goodput, Kind, goodput, node_seconds
from cpt.tracking.journal import EventRow, MetricRow, anomalies, read_events, read_metrics
from cpt.tracking.progress import Progress, Recovery, progress, recoveries
from slurm import client, standing
from slurm.client import PastJob
from slurm.standing import OVER, RunStanding, State

FINE, DEGRADED, DEAD = 0, 1, 2
"""Exit codes of `cpt status`, for cron."""

RECOMPUTED = 0.1
"""Share of the wall time; more of it computed twice is worth a look: checkpoint more often, or find the bad node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Hours that were allocated, spares and restarts included. `accounted`: node-hours in SLURM's own accounts; None where it keeps none."""

    node_hours: float
    gpu_hours: float
    price: float
    """Of a GPU-hour, in the site's money; 0 when unknown."""
    accounted: float | None

    @property
    def money(self) -> float:
        """In the site's money."""
        return self.gpu_hours * self.price


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """All of it, at `now` (seconds since the epoch)."""

    run: RunPaths
    now: float
    standing: RunStanding
    progress: Progress | None
    goodput: Goodput
    recoveries: Sequence[Recovery]
    checkpoint_time: float | None
    cost: Cost
    accounts: Sequence[PastJob]
    anomalies: Sequence[EventRow]
    """Updates that stood out, by the order of updates; one that came again after a kill counts once."""

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.standing.config.train.steps

    @property
    def seconds_left(self) -> float | None:
        """At the pace of the recent steps; None when nothing is known or nothing is left."""
        if self.progress is None or self.standing.state not in (State.running, State.queued):
            return None
        return max(0, self.steps - self.progress.step) * self.progress.step_seconds

    @property
    def last(self) -> tuple[AttemptBegin, AttemptEnd | None] | None:
        """The last attempt."""
        return self.standing.attempts[-1] if self.standing.attempts else None

    @property
    def working(self) -> Sequence[Beat]:
        """Heartbeats of ranks that have not said that they are done; empty when no attempt runs."""
        return [beat for beat in self.standing.beats if beat.phase is not Phase.done] if self.last and self.last[1] is None else []

    @property
    def concerns(self) -> list[str]:
        """Why a run that goes on is not quite well."""
        return [] if self.standing.state in (*OVER, State.new) else list(_concerns(self))

    @property
    def exit_code(self) -> int:
        """FINE, DEGRADED or DEAD."""
        if self.standing.state in (State.held, State.failed, State.gone):
            return DEAD
        return DEGRADED if self.concerns else FINE


def look(run: RunPaths, accounts: bool = True) -> RunFacts:
    """Read everything, ask the queue, and SLURM's accounts unless told not to. Raises `MissingInput` when this is no run directory."""
    now = time.time()
    known = standing.of_run(run)
    rows, events = read_metrics(run), read_events(run)
    until = _until(known, rows, events, now)
    past = _accounts(known) if accounts else []
    return RunFacts(
        run=run,
        now=now,
        standing=known,
        progress=progress(rows),
        goodput=goodput(known.attempts, rows, events, known.submitted, until),
        recoveries=recoveries(known.attempts, rows),
        checkpoint_time=_saved_at(events, known.checkpoint),
        cost=_cost(known, until, past),
        accounts=past,
        anomalies=anomalies(events),
    )


def as_json(facts: RunFacts) -> dict[str, object]:
    """The same as the page, for programs: plain values, times in seconds, moments in seconds since the epoch."""
    known, beats = facts.standing, facts.working
    begin = facts.last[0] if facts.last else None
    return {
        "run": str(facts.run.root),
        "time": facts.now,
        "state": known.state,
        "why": known.why,
        "exit_code": facts.exit_code,
        "concerns": facts.concerns,
        "job": known.job,
        "queue": known.queue,
        "attempt": begin.number if begin else None,
        "steps": facts.steps,
        "progress": asdict(facts.progress) if facts.progress else None,
        "seconds_left": facts.seconds_left,
        "ranks": {
            "phases": dict(Counter(str(beat.phase) for beat in beats)),
            "oldest_beat_seconds": max((facts.now - beat.time for beat in beats), default=None),
        },
        "checkpoint": {"step": known.checkpoint, "time": facts.checkpoint_time, "fast_step": known.fast_checkpoint},
        "goodput": {str(kind): {"seconds": facts.goodput.seconds(kind), "share": facts.goodput.share(kind)} for kind in Kind},
        "wall_seconds": facts.goodput.wall / 1000,
        "nodes": begin.nodes if begin else [],
        "spares": begin.spares if begin else [],
        "suspects": known.suspects.as_dict(),
        "attempts": [{"begin": one.as_dict(), "end": end.as_dict() if end else None} for one, end in known.attempts],
        "recoveries": [asdict(recovery) for recovery in facts.recoveries],
        "cost": asdict(facts.cost) | {"money": facts.cost.money},
        "accounts": [asdict(job) for job in facts.accounts],
        "anomalies": [event.fields | {"attempt": event.attempt} for event in facts.anomalies],
        "limits": {str(phase): seconds for phase, seconds in known.limits.items()},
    }


def silent(facts: RunFacts) -> list[Beat]:
    """Ranks whose last heartbeat is older than `slurm.silence_seconds`, longest silence first."""
    limit = facts.standing.config.slurm.silence_seconds
    return sorted((beat for beat in facts.working if facts.now - beat.time > limit), key=lambda beat: beat.time)


def _concerns(facts: RunFacts) -> Iterator[str]:
    known = facts.standing
    if known.state is State.unknown:
        yield f"the scheduler does not answer: {known.why}"
    if known.state is State.queued and known.attempts:
        yield f"in the queue again after {len(known.attempts)} attempt(s)"
    for node, why in known.suspects.excluded.items():
        yield f"{node} is kept out: {why}"
    if known.state is State.running and facts.last and known.config.slurm.spare_nodes and not facts.last[0].spares:
        yield f"no spare node is left (slurm.spare_nodes={known.config.slurm.spare_nodes}): the next loss goes through the queue"
    if (share := facts.goodput.share(Kind.recomputed)) > RECOMPUTED:
        yield f"{share:.0%} of the time went into steps that were lost and computed again"
    if known.without_progress:
        yield f"{known.without_progress} attempt(s) in a row without a newer checkpoint"
    if mute := silent(facts):
        longest = f"rank {mute[0].rank} on {mute[0].host} for {facts.now - mute[0].time:.0f} s"
        yield f"{len(mute)} of {len(facts.working)} ranks are silent, {longest}" + (f"; in all on {fold(beat.host for beat in mute)}" if len(mute) > 1 else "")


def _until(known: RunStanding, rows: Sequence[MetricRow], events: Sequence[EventRow], now: float) -> float:
    """Time goes on only while the run does."""
    if known.state in (State.running, State.queued):
        return now
    return max([known.last_sign, *(row.ts_ms / 1000 for row in rows[-1:]), *(event.ts_ms / 1000 for event in events[-1:])])


def _saved_at(events: Sequence[EventRow], step: int) -> float | None:
    saved = [event.ts_ms / 1000 for event in events if event.name == "checkpoint_saved" and event.fields.get("step") == step]
    return saved[-1] if saved else None


def _accounts(known: RunStanding) -> list[PastJob]:
    if known.config.cluster.scheduler is not Scheduler.slurm:
        return []
    ids = dict.fromkeys([*(begin.job for begin, _ in known.attempts), known.job])
    return [job for name in ids if name for job in client.sacct_history(known.config.cluster, name)]


def _cost(known: RunStanding, until: float, past: Sequence[PastJob]) -> Cost:
    cluster = known.config.cluster
    hours = node_seconds(known.attempts, until) / 3600
    accounted = sum(job.nodes * job.seconds for job in past) / 3600 if past else None
    return Cost(node_hours=hours, gpu_hours=hours * cluster.gpus_per_node, price=cluster.gpu_hour_price, accounted=accounted)
