"""What follows an attempt: done, relaunch, requeue, hold or fail. Decided from the files that ranks left, never from srun's code.

With `--kill-on-bad-exit` one rank's `exit 1` comes back as 143, the siblings' SIGTERM, so a code says only that something
happened. What counts is progress: a run may come back a hundred times as long as each attempt leaves a newer checkpoint,
and stops at the second identical crash that does not.

::

    ending           next              budget in a row without progress
    done, stopped    done              -
    preempted        requeue           none: somebody more urgent is no fault of the run
    time_limit       requeue           2, then hold: the run cannot reach a checkpoint within its time
    node_lost        relaunch|requeue  5, then hold
    launch_failure   relaunch|requeue  3, then hold
    rank_crash       relaunch|requeue  3, then hold; the same crash twice, then fail
    hang             relaunch|requeue  2, then hold
    anomaly          hold              0: the same update would come again
    fatal            fail              0: another attempt cannot help

Relaunch, inside the allocation, where enough healthy nodes are left in it; else requeue.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cpt.config.running import SlurmConfig
from cpt.core.artifacts import Artifact
from cpt.core.attempts import Action, Ending, RankRecord, StopRecord, Suspects
from cpt.core.errors import EXIT_DONE, EXIT_HOLD, EXIT_OURS, EXIT_RESUME, EXIT_YOURS
from slurm.watch import Trouble


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What an ending asks for. `budget`: attempts in a row without progress that may end so; None does not count them."""

    action: Action
    budget: int | None = None


POLICIES = {
    Ending.done: Policy(action=Action.done),
    Ending.stopped: Policy(action=Action.done),
    Ending.preempted: Policy(action=Action.requeue),
    Ending.time_limit: Policy(action=Action.requeue, budget=2),
    Ending.node_lost: Policy(action=Action.relaunch, budget=5),
    Ending.launch_failure: Policy(action=Action.relaunch, budget=3),
    Ending.rank_crash: Policy(action=Action.relaunch, budget=3),
    Ending.hang: Policy(action=Action.relaunch, budget=2),
    Ending.anomaly: Policy(action=Action.hold),
    Ending.fatal: Policy(action=Action.fail),
}

_RELAUNCHES = 2
"""Relaunches in a row without progress, after which the queue is asked for other nodes."""

_HARDWARE = re.compile(r"NCCL|CUDA|cuda|ECC|Xid|NVLink|Bus error|Input/output error")
"""What a crash says when its node, and not the program, may be at fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState(Artifact):
    """Memory between attempts (`state.json`). A human's new submission, a new job id, starts the counts afresh."""

    job: str = ""
    first_attempt: int = 0
    """The first attempt of this job id."""
    successor: str = ""
    """The next job of a chain, which goes on with these counts."""
    streak: dict[str, int] = field(default_factory=dict)
    """Ending -> how often, since the last attempt that left a newer checkpoint."""
    relaunches: int = 0
    """In a row without progress."""
    signature: str = ""
    """Of the last crash without progress."""
    longest: dict[str, float] = field(default_factory=dict)
    """Phase -> the longest that it took, seconds: what is a hang is measured, not guessed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything that is known after an attempt's ranks are gone."""

    attempt: int
    code: int
    """srun's; says little."""
    stop: StopRecord | None = None
    """Only when this attempt wrote it."""
    ranks: Sequence[RankRecord] = ()
    """By time: the first crash is the cause, the others lost their peer."""
    beaten: bool = True
    """Whether any rank ever sent a heartbeat."""
    step_before: int = 0
    step_now: int = 0
    lost_nodes: Sequence[str] = ()
    """Nodes of the attempt that do not answer now."""
    trouble: Trouble | None = None
    """Why the ranks were ended from outside."""
    told: bool = False
    """SLURM asked the job to stop."""
    near_limit: bool = False
    """It was about the time limit."""
    cancelled: bool = False
    """Somebody used scancel."""
    room: bool = False
    """Enough healthy nodes are left in the allocation."""

    @property
    def progress(self) -> bool:
        """Whether this attempt left a newer checkpoint than it found."""
        return self.step_now > self.step_before

    @property
    def cause(self) -> RankRecord | None:
        """The first rank that wrote down how it failed; one that no other attempt can help before all."""
        failed = [rank for rank in self.ranks if rank.outcome in ("crash", "fatal")]
        return next((rank for rank in failed if rank.outcome == "fatal"), failed[0] if failed else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How an attempt ended and what follows; `message` is one sentence for a human, `nodes` are blamed."""

    ending: Ending
    action: Action
    message: str
    nodes: Sequence[str] = ()
    rank: int = -1

    @property
    def exit_code(self) -> int:
        """What the batch script ends with."""
        if self.ending is Ending.fatal:
            return EXIT_YOURS
        return {Action.done: EXIT_DONE, Action.requeue: EXIT_RESUME, Action.hold: EXIT_HOLD}.get(self.action, EXIT_OURS)


def decide(evidence: Evidence, state: RunState, config: SlurmConfig) -> tuple[Verdict, RunState]:
    """The verdict, and what to remember for the next attempt. Pure."""
    ending = classify(evidence)
    verdict = Verdict(
        ending=ending, action=POLICIES[ending].action, message=_message(evidence, ending), nodes=_blamed(evidence, ending), rank=_rank(evidence, ending)
    )
    if verdict.action in (Action.done, Action.fail, Action.hold):
        return verdict, state
    after = remember(evidence, ending, state)
    if stop := _exhausted(evidence, ending, state, after, config):
        return dataclasses.replace(verdict, ending=stop[0], action=stop[1], message=f"{stop[2]}; {verdict.message}"), after
    if verdict.action is Action.relaunch:
        if not (config.relaunch and evidence.room) or evidence.told or after.relaunches >= _RELAUNCHES:
            verdict = dataclasses.replace(verdict, action=Action.requeue)
        else:
            after = dataclasses.replace(after, relaunches=after.relaunches + 1)
    return verdict, after if verdict.action is Action.relaunch else dataclasses.replace(after, relaunches=0)


def classify(evidence: Evidence) -> Ending:
    """The ranks' own word first, then what was seen from outside, then what is left."""
    stop, cause = evidence.stop, evidence.cause
    if stop and stop.reason == "done":
        return Ending.done
    if evidence.cancelled:
        return Ending.stopped
    if cause and cause.outcome == "fatal":
        return Ending.fatal
    if stop and stop.reason == "anomaly":
        return Ending.anomaly
    if stop:
        limit = stop.reason == "deadline" or evidence.near_limit
        return Ending.stopped if stop.reason == "trigger" else Ending.time_limit if limit else Ending.preempted
    if evidence.lost_nodes:
        return Ending.node_lost
    if evidence.trouble:
        return evidence.trouble.ending
    if evidence.told:
        return Ending.time_limit if evidence.near_limit else Ending.preempted
    return Ending.rank_crash if evidence.beaten else Ending.launch_failure


def remember(evidence: Evidence, ending: Ending, state: RunState) -> RunState:
    """What the next attempt is to know of this one: progress forgives everything."""
    if evidence.progress:
        return dataclasses.replace(state, streak={}, relaunches=0, signature="")
    if evidence.stop and ending is Ending.preempted:  # saved when told to: not counted, though it had nothing new to save
        return state
    cause = evidence.cause if ending is Ending.rank_crash else None
    signature = f"{cause.signature} after step {cause.step}" if cause and cause.signature else ""
    return dataclasses.replace(state, streak=state.streak | {ending: state.streak.get(ending, 0) + 1}, signature=signature)


def _exhausted(evidence: Evidence, ending: Ending, before: RunState, after: RunState, config: SlurmConfig) -> tuple[Ending, Action, str] | None:
    """(ending, action, why) when a budget is spent."""
    attempts, budget = evidence.attempt - before.first_attempt + 1, POLICIES[ending].budget
    if attempts >= config.max_attempts:
        return Ending.no_progress, Action.hold, f"{attempts} attempts (slurm.max_attempts)"
    if after.signature and after.signature == before.signature:
        return ending, Action.fail, "the same crash twice without progress"
    if budget is not None and after.streak.get(ending, 0) >= budget:
        return Ending.no_progress, Action.hold, f"{budget} x {ending} in a row without a newer checkpoint"
    counted = sum(count for kind, count in after.streak.items() if kind not in (Ending.preempted, Ending.node_lost))
    if counted >= config.max_no_progress:
        return Ending.no_progress, Action.hold, f"{counted} attempts without a newer checkpoint (slurm.max_no_progress)"
    return None


def _message(evidence: Evidence, ending: Ending) -> str:
    stop, cause, trouble = evidence.stop, evidence.cause, evidence.trouble
    if ending is Ending.done and stop:
        return f"finished at step {stop.step}"
    steps = f", checkpoint {evidence.step_before} -> {evidence.step_now}"
    if ending is Ending.stopped:
        how = "cancelled with scancel" if evidence.cancelled else "stopped on request"
        return f"{how}{steps}; submit it again to go on"
    if ending is Ending.anomaly and stop:
        return f"{stop.why}{steps}"
    if stop:
        return f"told to stop ({stop.reason}), saved at step {stop.step}{steps}"
    if trouble and ending is trouble.ending:
        return trouble.message + steps
    if evidence.lost_nodes:
        return f"lost {' '.join(evidence.lost_nodes)}{steps}"
    if cause:
        return f"rank {cause.rank} on {cause.host}: {cause.signature} {cause.message}".strip() + steps
    if evidence.told:
        return f"told to stop, but did not save in time (srun returned {evidence.code}){steps}"
    if ending is Ending.launch_failure:
        return f"no rank said a word (srun returned {evidence.code}), see job.log{steps}"
    return f"a rank died without a word, killed or out of memory (srun returned {evidence.code}){steps}"


def _blamed(evidence: Evidence, ending: Ending) -> Sequence[str]:
    """Nodes that may be at fault; a program's own crash blames none."""
    if ending is Ending.node_lost:
        return list(evidence.lost_nodes) or list(evidence.trouble.nodes if evidence.trouble else ())
    if evidence.trouble and ending is evidence.trouble.ending:
        return list(evidence.trouble.nodes)
    cause = evidence.cause
    return [cause.host] if cause and ending is Ending.rank_crash and _HARDWARE.search(f"{cause.signature} {cause.message}") else []


def _rank(evidence: Evidence, ending: Ending) -> int:
    """Of a lost node or a hang the rank that fell silent; what the others wrote down is only that they lost it."""
    if evidence.trouble and evidence.trouble.ranks:
        return evidence.trouble.ranks[0]
    return evidence.cause.rank if evidence.cause and ending in (Ending.rank_crash, Ending.fatal) else -1


def suspect(known: Suspects, verdict: Verdict, attempt: int) -> Suspects:
    """Blame added; whoever is blamed twice is kept out from now on. Pure."""
    blamed, excluded = dict(known.blamed), dict(known.excluded)
    for node in verdict.nodes:
        blamed[node] = [*blamed.get(node, []), f"attempt {attempt}: {verdict.ending}"]
        if len(blamed[node]) >= 2:
            excluded.setdefault(node, f"failed {len(blamed[node])} times: {'; '.join(blamed[node])}")
    return Suspects(blamed=blamed, excluded=excluded)
