"""What follows an attempt: requeue, hold, fail or done. Decided from the files that ranks left, never from srun's code.

With `--kill-on-bad-exit=1` one rank's `exit 1` comes back as 143, the siblings' SIGTERM, so a code says only that
something happened. What counts is progress: a run may be requeued a hundred times as long as each attempt leaves a newer
checkpoint, and stops at the second identical crash that does not.

The batch script calls this before and after its ranks (`python -m slurm.recovery begin|end`), the local supervisor as functions.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from cpt.config.running import SlurmConfig
from cpt.config.seal import read_config
from cpt.core.artifacts import Artifact, read_json
from cpt.core.attempts import AttemptBegin, AttemptEnd, RankRecord, StopRecord
from cpt.core.errors import EXIT_DONE, EXIT_HOLD, EXIT_OURS, EXIT_RESUME, EXIT_YOURS, CptError
from cpt.core.paths import AttemptPaths, RunPaths
from slurm import client


class Action(StrEnum):
    """What the scheduler is asked to do."""

    done = "done"
    requeue = "requeue"
    fail = "fail"
    hold = "hold"  # a human looks, then submits again


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState(Artifact):
    """Memory between attempts (`state.json`). A human's new submission, a new job id, starts it afresh."""

    job: str
    first_attempt: int
    """The first attempt of this job id."""
    no_progress: int = 0
    """Attempts in a row that left no newer checkpoint."""
    signature: str = ""
    """Of the last crash without progress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything that is known after an attempt's ranks are gone."""

    attempt: int
    code: int
    signaled: bool
    """SLURM asked the job to stop."""
    stop: StopRecord | None
    """Only when this attempt wrote it."""
    ranks: Sequence[RankRecord]
    """In the order written: the first crash is the cause, the others lost their peer."""
    step_before: int
    step_now: int
    lost_nodes: Sequence[str] = ()
    """Nodes of the attempt that are down now."""

    @property
    def progress(self) -> bool:
        """Whether this attempt left a newer checkpoint than it found."""
        return self.step_now > self.step_before

    @property
    def cause(self) -> RankRecord | None:
        """The first crash that was written down."""
        return next((rank for rank in self.ranks if rank.outcome == "crash"), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """`classification` as in `AttemptEnd`; `message` is one sentence for a human."""

    classification: str
    action: Action
    message: str

    @property
    def exit_code(self) -> int:
        """What the batch script ends with, or acts upon."""
        if self.classification == "fatal":
            return EXIT_YOURS
        return {Action.done: EXIT_DONE, Action.requeue: EXIT_RESUME, Action.hold: EXIT_HOLD, Action.fail: EXIT_OURS}[self.action]


def decide(evidence: Evidence, state: RunState, limits: SlurmConfig) -> tuple[Verdict, RunState]:
    """The verdict, and what to remember for the next attempt. Pure."""
    if verdict := _by_its_own_word(evidence):
        return verdict, state
    after = _remember(evidence, state)
    return _by_progress(evidence, state, after, limits), after


def _by_its_own_word(evidence: Evidence) -> Verdict | None:
    """Endings after which no other attempt comes: finished, stopped by the user, or beyond what an attempt can cure."""
    stop = evidence.stop
    if stop and stop.reason == "done":
        return Verdict(classification="done", action=Action.done, message=f"finished at step {stop.step}")
    for rank in evidence.ranks:
        if rank.outcome == "fatal":
            return Verdict(classification="fatal", action=Action.fail, message=f"rank {rank.rank} on {rank.host}: {rank.message}")
    if stop and stop.reason == "trigger":
        return Verdict(classification="trigger", action=Action.done, message=f"stopped on request at step {stop.step}; submit it again to go on")
    return None


def _by_progress(evidence: Evidence, state: RunState, after: RunState, limits: SlurmConfig) -> Verdict:
    kind = _kind(evidence)
    if evidence.attempt - state.first_attempt + 1 >= limits.max_attempts:
        return Verdict(classification="too_many_attempts", action=Action.hold, message=f"{limits.max_attempts} attempts (slurm.max_attempts); {_why(evidence)}")
    if after.signature and after.signature == state.signature:
        return Verdict(classification="repeated_crash", action=Action.fail, message=f"the same crash twice without progress: {_why(evidence)}")
    if after.no_progress >= limits.max_no_progress:
        return Verdict(
            classification="no_progress",
            action=Action.hold,
            message=f"{after.no_progress} attempts without a newer checkpoint (slurm.max_no_progress); {_why(evidence)}",
        )
    return Verdict(classification=kind, action=Action.requeue, message=_why(evidence))


def _kind(evidence: Evidence) -> str:
    if evidence.stop and evidence.stop.reason in ("signal", "deadline"):
        return evidence.stop.reason
    if evidence.lost_nodes:
        return "lost"
    return "signal" if evidence.signaled else "crash"


def _remember(evidence: Evidence, state: RunState) -> RunState:
    if evidence.progress:
        return dataclasses.replace(state, no_progress=0, signature="")
    if evidence.stop:  # saved when told to: not counted, though it had nothing new to save
        return state
    cause = None if evidence.lost_nodes else evidence.cause  # whoever outlives a node fails on its lost peer
    signature = f"{cause.signature} at step {cause.step}" if cause and cause.signature else ""
    return dataclasses.replace(state, no_progress=state.no_progress + 1, signature=signature)


def _why(evidence: Evidence) -> str:
    steps = f"step {evidence.step_before} -> {evidence.step_now}"
    if evidence.stop:
        return f"stopped by {evidence.stop.reason} at step {evidence.stop.step}, {steps}"
    if evidence.lost_nodes:
        return f"lost {' '.join(evidence.lost_nodes)}, {steps}"
    if cause := evidence.cause:
        return f"rank {cause.rank} on {cause.host} crashed: {cause.signature} {cause.message}".strip() + f", {steps}"
    asked = "told to stop, but did not save in time" if evidence.signaled else "ended without a word from any rank"
    return f"{asked} (srun returned {evidence.code}), {steps}"


Down = Callable[[Sequence[str]], Sequence[str]]
"""Those of some nodes that are down now."""


def begin(run: RunPaths, *, job: str, restarts: int, nodes: Sequence[str], limits: SlurmConfig, down: Down = lambda _: ()) -> tuple[Verdict | None, int]:
    """Open an attempt: (None, its number), or a verdict when there is nothing to run. Records how a lost attempt ended."""
    stop = StopRecord.load(run.stopped) if run.stopped.is_file() else None
    if stop and stop.reason == "done":
        return Verdict(classification="done", action=Action.done, message=f"finished at step {stop.step}; nothing to do"), -1
    before = run.attempts()
    number = before[-1].number + 1 if before else 0
    step = last_step(run)
    state = _settle(run, before[-1], step, down) if before else RunState(job=job, first_attempt=0)
    if state.job != job:
        state = RunState(job=job, first_attempt=number)
    state.save(run.state)
    if state.no_progress >= limits.max_no_progress:
        message = f"{state.no_progress} attempts were lost without a newer checkpoint (slurm.max_no_progress)"
        return Verdict(classification="no_progress", action=Action.hold, message=message), -1
    record = AttemptBegin(number=number, job=job, restarts=restarts, nodes=list(nodes), step=step, time=time.time())
    record.save(run.attempt(number).begin)
    return None, number


def _settle(run: RunPaths, last: AttemptPaths, step: int, down: Down) -> RunState:
    """The state after the last attempt, which is closed here if it could not close itself."""
    state = RunState.load(run.state) if run.state.is_file() else RunState(job="", first_attempt=0)
    if last.end.is_file() or not last.begin.is_file():
        return state
    started = AttemptBegin.load(last.begin)
    lost = " ".join(down(started.nodes))
    message = f"{f'lost {lost}' if lost else 'died without a word: a node lost power, or it was killed'}, step {started.step} -> {step}"
    AttemptEnd(number=last.number, classification="lost", action=Action.requeue, code=-1, message=message, step=step, time=_last_touched(run, last)).save(
        last.end
    )
    return dataclasses.replace(state, no_progress=0 if step > started.step else state.no_progress + 1)


def end(run: RunPaths, evidence: Evidence, limits: SlurmConfig) -> Verdict:
    """Close an attempt and say what follows."""
    verdict, state = decide(evidence, RunState.load(run.state), limits)
    state.save(run.state)
    record = AttemptEnd(
        number=evidence.attempt,
        classification=verdict.classification,
        action=verdict.action,
        code=evidence.code,
        message=verdict.message,
        step=evidence.step_now,
        time=time.time(),
    )
    record.save(run.attempt(evidence.attempt).end)
    if verdict.classification == "trigger":  # obeyed once; the next submission is to go on
        (run.triggers / "stop").unlink(missing_ok=True)
    return verdict


def gather(run: RunPaths, attempt: int, code: int, signaled: bool) -> Evidence:
    """Read what the attempt's ranks left."""
    paths = run.attempt(attempt)
    stop = StopRecord.load(run.stopped) if run.stopped.is_file() else None
    files = sorted(paths.root.glob("rank_*.json"), key=lambda path: path.stat().st_mtime_ns)
    return Evidence(
        attempt=attempt,
        code=code,
        signaled=signaled,
        stop=stop if stop and stop.attempt == attempt else None,
        ranks=[RankRecord.load(path) for path in files],
        step_before=AttemptBegin.load(paths.begin).step,
        step_now=last_step(run),
    )


def last_step(run: RunPaths) -> int:
    """Step of the newest complete checkpoint; 0 without one."""
    return int(read_json(run.latest)["step"]) if run.latest.is_file() else 0


def _last_touched(run: RunPaths, attempt: AttemptPaths) -> float:
    files: list[Path] = [*attempt.root.iterdir(), run.metrics(attempt.number), run.events(attempt.number)]
    return max(path.stat().st_mtime for path in files if path.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """The batch script's side: `begin` prints the attempt's number or nothing, `end` exits with the verdict's code."""
    parser = argparse.ArgumentParser(prog="slurm.recovery", description=__doc__)
    parser.add_argument("moment", choices=("begin", "end"))
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--attempt", type=int)
    parser.add_argument("--code", type=int)
    parser.add_argument("--signaled", type=int, default=0)
    given = parser.parse_args(arguments)
    run = RunPaths(given.run)
    try:
        config = read_config(run.config)
        if given.moment == "end":
            evidence = gather(run, given.attempt, given.code, bool(given.signaled))
            nodes = AttemptBegin.load(run.attempt(given.attempt).begin).nodes
            evidence = dataclasses.replace(evidence, lost_nodes=client.lost_nodes(config.cluster, nodes))
            return _say(end(run, evidence, config.slurm))
        nodes = client.host_names(config.cluster, os.environ["SLURM_JOB_NODELIST"])
        job, restarts = os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        nothing, number = begin(run, job=job, restarts=restarts, nodes=nodes, limits=config.slurm, down=partial(client.lost_nodes, config.cluster))
    except CptError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    if nothing:
        return _say(nothing)
    sys.stdout.write(f"{number:03d}\n")
    sys.stderr.write(f"attempt {number} on {' '.join(nodes)}\n")
    return EXIT_DONE


def _say(verdict: Verdict) -> int:
    sys.stderr.write(f"{verdict.action}: {verdict.message}\n")
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
