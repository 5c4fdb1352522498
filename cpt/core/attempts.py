"""Records of a run's life: how attempts begin and end, how ranks die, why training stopped."""

from __future__ import annotations

from dataclasses import dataclass

from cpt.core.artifacts import Artifact


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRecord(Artifact):
    """Why training ended by itself (`stopped.json`), written by rank 0 at the end of an attempt.

    reason: done | signal | trigger | deadline.
    """

    reason: str
    step: int
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RankRecord(Artifact):
    """How one rank ended (`attempts/<k>/rank_<r>.json`). outcome: done | stopped | crash | fatal.

    fatal means that another attempt cannot help: a configuration error, missing data, a failed parity gate.
    """

    rank: int
    host: str
    outcome: str
    step: int
    signature: str = ""
    """Of a crash: exception type, innermost frame; the same signature twice without progress stops the run."""
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptBegin(Artifact):
    """An attempt's first word (`begin.json`), written before its ranks start. `time` in seconds since the epoch."""

    number: int
    job: str
    """SLURM's job id, `<array>_<task>` in an array, or the local supervisor's."""
    restarts: int
    """SLURM_RESTART_COUNT: every requeue counts, also preemption."""
    nodes: list[str]
    step: int
    """Step of the last complete checkpoint; 0 when there is none."""
    time: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnd(Artifact):
    """How an attempt ended and what follows (`end.json`).

    classification: done | signal | deadline | trigger | fatal | crash | repeated_crash | lost | no_progress | too_many_attempts.
    action: done | requeue | fail | hold. A `lost` attempt died without a word (power loss, KILL) and is recorded by the next one,
    with the time of the last file it touched.
    """

    number: int
    classification: str
    action: str
    code: int
    """What srun returned; -1 for a lost attempt."""
    message: str
    step: int
    time: float


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
