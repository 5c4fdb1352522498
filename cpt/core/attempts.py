"""Records of a run's life: how attempts begin and end, how ranks die, why training stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cpt.core.artifacts import Artifact


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRecord(Artifact):
    """Why training ended by itself (`stopped.json`), written by rank 0 at the end of an attempt.

    reason: done | signal | trigger | deadline | anomaly.
    """

    reason: str
    step: int
    attempt: int
    why: str = ""
    """Of an anomaly: which update was not made, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankRecord(Artifact):
    """How one rank ended (`attempts/<k>/rank_<r>.json`). outcome: done | stopped | crash | fatal.

    fatal means that another attempt cannot help: a configuration error, missing data, a failed parity gate.
    """

    rank: int
    host: str
    outcome: str
    step: int
    time: float = 0.0
    """Seconds since the epoch, by this rank's node."""
    signature: str = ""
    """Of a crash: exception type, innermost frame; the same signature twice without progress stops the run."""
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptBegin(Artifact):
    """An attempt's first word (`begin.json`), written before its ranks start. `time` in seconds since the epoch."""

    number: int
    job: str
    """SLURM's number of the job, of the task alone in an array (squeue calls it `<array>_<task>`), or the local supervisor's."""
    restarts: int
    """SLURM_RESTART_COUNT: every requeue counts, also preemption."""
    nodes: list[str]
    step: int
    """Step of the last complete checkpoint; 0 when there is none."""
    time: float
    path: str = "submit"
    """How it came to be: submit | relaunch (inside the allocation) | requeue (through the queue, same job) | chain (the next job)."""
    spares: list[str] = field(default_factory=list)
    """Healthy nodes of the allocation that are left idle."""
    host: str = ""
    """Where its supervisor runs: one of `nodes` or `spares`."""


class Ending(StrEnum):
    """Why an attempt ended. Each has its own action, budget and message in `slurm.recovery`."""

    done = "done"
    stopped = "stopped"  # somebody touched triggers/stop
    preempted = "preempted"
    time_limit = "time_limit"
    node_lost = "node_lost"
    launch_failure = "launch_failure"  # no rank ever said a word
    rank_crash = "rank_crash"
    hang = "hang"
    anomaly = "anomaly"  # an update that should not be made, and nothing that may be done about it without a human
    no_progress = "no_progress"
    fatal = "fatal"  # another attempt cannot help


class Action(StrEnum):
    """What follows an attempt."""

    done = "done"
    relaunch = "relaunch"  # new ranks inside the same allocation
    requeue = "requeue"  # through the queue
    fail = "fail"
    hold = "hold"  # a human looks, then submits again


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnd(Artifact):
    """How an attempt ended and what follows (`end.json`).

    An attempt whose supervisor died with it (power loss of the batch host) is recorded by the next one, with the time of the last
    file it touched.
    """

    number: int
    ending: Ending
    action: Action
    code: int
    """What srun returned; -1 when nobody was left to see it."""
    message: str
    """One sentence for a human."""
    step: int
    """Of the newest complete checkpoint."""
    time: float
    nodes: list[str] = field(default_factory=list)
    """Nodes that are blamed: lost, silent, or where the first rank crashed."""
    rank: int = -1
    """The rank that failed first; -1 when unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspects(Artifact):
    """Nodes that this run has seen fail (`suspects.json`), for the next attempt and for the cluster's admin."""

    blamed: dict[str, list[str]] = field(default_factory=dict)
    """Node -> what happened on it, in order: `attempt 3: power lost`."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Node -> why it is kept out from now on: blamed twice, or failed its preflight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrillRecord(Artifact):
    """A failure made on purpose (`drill.json`): what was taken away, when (seconds since the epoch), and how long the way back took."""

    what: str
    time: float
    attempt: int
    step: int
    """Last step done before it."""
    seconds_to_next_step: float = 0.0
    """From the loss to the end of the next attempt's first step."""
