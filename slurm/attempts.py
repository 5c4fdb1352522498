"""The book of attempts: opened before ranks start, closed when they are gone, by the supervisor or by whoever comes after it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpt.config.running import SlurmConfig
from cpt.core.artifacts import read_json
from cpt.core.attempts import Action, AttemptBegin, AttemptEnd, Ending, RankRecord, StopRecord, Suspects
from cpt.core.heartbeat import read_beats
from cpt.core.paths import AttemptPaths, RunPaths
from slurm.recovery import Evidence, RunState, Verdict, decide, remember, suspect

Down = Callable[[Sequence[str]], Sequence[str]]
"""Those of some nodes that are down now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Where and how an attempt is about to begin. `path` as in `AttemptBegin`."""

    job: str
    restarts: int
    nodes: Sequence[str]
    path: str = "submit"
    spares: Sequence[str] = ()
    host: str = ""


def begin(run: RunPaths, start: Start, down: Down = lambda _: ()) -> int:
    """Open an attempt and return its number. Records how the last one ended if nobody was left to."""
    before = [attempt for attempt in run.attempts() if attempt.begin.is_file()]
    number = next_number(run)
    step = last_step(run)
    state = _settle(run, before[-1], step, down) if before else RunState(job=start.job)
    continued = bool(state.successor) and state.successor == start.job
    if state.job != start.job:
        state = dataclasses.replace(state, job=start.job, successor="") if continued else RunState(job=start.job, first_attempt=number, longest=state.longest)
    state.save(run.state)
    record = AttemptBegin(
        number=number,
        job=start.job,
        restarts=start.restarts,
        nodes=list(start.nodes),
        step=step,
        time=time.time(),
        path="chain" if continued else start.path,
        spares=list(start.spares),
        host=start.host,
    )
    record.save(run.attempt(number).begin)
    return number


def next_number(run: RunPaths) -> int:
    """A folder where nobody began holds only the preflight of an attempt that is still to come."""
    return max((attempt.number + 1 for attempt in run.attempts() if attempt.begin.is_file()), default=0)


def finished(run: RunPaths) -> Verdict | None:
    """What to say when there is nothing left to train."""
    stop = StopRecord.load(run.stopped) if run.stopped.is_file() else None
    if stop is None or stop.reason != "done":
        return None
    return Verdict(ending=Ending.done, action=Action.done, message=f"finished at step {stop.step}; nothing to do")


def _settle(run: RunPaths, last: AttemptPaths, step: int, down: Down) -> RunState:
    """The state after the last attempt, which is closed here if it could not close itself."""
    state = load_state(run)
    if last.end.is_file():
        return state
    started = AttemptBegin.load(last.begin)
    lost, host = list(down(started.nodes)), started.host or started.nodes[0]
    evidence = Evidence(attempt=last.number, code=-1, step_before=started.step, step_now=step, lost_nodes=lost or [host])
    who = f"lost {' '.join(lost)}" if lost else f"its supervisor on {host} died without a word: power loss, or killed"
    verdict = Verdict(ending=Ending.node_lost, action=Action.requeue, message=f"{who}, checkpoint {started.step} -> {step}", nodes=lost)
    _close(run, evidence, verdict, _last_touched(run, last))
    return dataclasses.replace(remember(evidence, Ending.node_lost, state), relaunches=0)


def end(run: RunPaths, evidence: Evidence, config: SlurmConfig, longest: dict[str, float] | None = None) -> Verdict:
    """Close an attempt and say what follows."""
    verdict, state = decide(evidence, load_state(run), config)
    dataclasses.replace(state, longest=longest or state.longest).save(run.state)
    _close(run, evidence, verdict, time.time())
    if verdict.ending is Ending.stopped:  # obeyed once; the next submission is to go on
        (run.triggers / "stop").unlink(missing_ok=True)
    return verdict


def _close(run: RunPaths, evidence: Evidence, verdict: Verdict, at: float) -> None:
    record = AttemptEnd(
        number=evidence.attempt,
        ending=verdict.ending,
        action=verdict.action,
        code=evidence.code,
        message=verdict.message,
        step=evidence.step_now,
        time=at,
        nodes=list(verdict.nodes),
        rank=verdict.rank,
    )
    record.save(run.attempt(evidence.attempt).end)
    if verdict.nodes:
        suspect(load_suspects(run), verdict, evidence.attempt).save(run.suspects)


def gather(run: RunPaths, attempt: int, code: int) -> Evidence:
    """Read what the attempt's ranks left."""
    paths = run.attempt(attempt)
    stop = StopRecord.load(run.stopped) if run.stopped.is_file() else None
    ranks = [RankRecord.load(path) for path in paths.root.glob("rank_*.json")]
    return Evidence(
        attempt=attempt,
        code=code,
        stop=stop if stop and stop.attempt == attempt else None,
        ranks=sorted(ranks, key=lambda rank: (rank.time, rank.rank)),
        beaten=bool(read_beats(paths)) or bool(ranks),
        step_before=AttemptBegin.load(paths.begin).step,
        step_now=last_step(run),
    )


def load_state(run: RunPaths) -> RunState:
    """Empty before the first attempt."""
    return RunState.load(run.state) if run.state.is_file() else RunState()


def load_suspects(run: RunPaths) -> Suspects:
    """Empty as long as no node failed."""
    return Suspects.load(run.suspects) if run.suspects.is_file() else Suspects()


def last_step(run: RunPaths) -> int:
    """Step of the newest checkpoint, on the shared disk or on the nodes' own; 0 without one."""
    return max(last_full_step(run), last_fast_step(run))


def last_full_step(run: RunPaths) -> int:
    """Step of the newest complete checkpoint on the shared disk; 0 without one."""
    return _step(run.latest)


def last_fast_step(run: RunPaths) -> int:
    """Step of the newest checkpoint on the nodes' own disks, as ranks said last; 0 without one."""
    return _step(run.fast)


def _step(path: Path) -> int:
    return int(read_json(path)["step"]) if path.is_file() else 0


def _last_touched(run: RunPaths, attempt: AttemptPaths) -> float:
    files: list[Path] = [*attempt.root.iterdir(), run.metrics(attempt.number), run.events(attempt.number)]
    return max(path.stat().st_mtime for path in files if path.is_file())
