"""A job's life without SLURM: the supervisor's own code, on a place that the test plays."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.core.artifacts import write_json
from cpt.core.attempts import Action, AttemptBegin, AttemptEnd, Ending, RankRecord, StopRecord, Suspects
from cpt.core.errors import CptError
from cpt.core.heartbeat import Beat, Phase, read_beat
from cpt.core.paths import AttemptPaths, RunPaths
from cpt.topology import Fabric, Seats
from cpt.topology.fabric import Kind
from cpt.topology.layout import Group
from slurm import attempts, supervisor
from slurm.client import SlurmFailed
from slurm.recovery import RunState, Verdict
from slurm.supervisor import leave, supervise

QUICK = ["train.train_tokens=81920", "slurm.nodes=2", "slurm.heartbeat_seconds=0.02", "slurm.silence_seconds=0.2", "slurm.kill_seconds=1"]


@dataclass
class Ranks:
    """The ranks of one attempt: `ends` looks at itself at each poll and returns the code they end with, None as long as they go on."""

    place: Place
    run: RunPaths
    attempt: AttemptPaths
    nodes: Sequence[str]
    ends: Callable[[Ranks], int | None]
    polls: int = 0
    events: list[str] = field(default_factory=list)
    code: int | None = None

    def poll(self) -> int | None:
        self.polls += 1
        self.code = self.ends(self) if self.code is None else self.code
        return self.code

    def tell(self) -> None:
        self.events.append("tell")

    def stacks(self, blamed: Sequence[Beat]) -> None:
        self.events.append(f"stacks, and of {[beat.rank for beat in blamed]} from outside")

    def kill(self) -> None:
        self.events.append("kill")
        self.code = 137

    def beat(self, rank: int = 0, host: str = "", phase: Phase = Phase.step, step: int = 0, since: float = 0.0, at: float = 0.0) -> None:
        beat = {"rank": rank, "host": host or self.nodes[0], "pid": 1, "phase": phase, "step": step, "since": since, "time": at}
        write_json(self.attempt.beat(beat["host"], rank), beat)

    def crash(self, rank: int = 0, message: str = "", step: int = 4, outcome: str = "crash") -> None:
        host = self.nodes[rank]
        record = RankRecord(rank=rank, host=host, outcome=outcome, step=step, time=time.time(), signature=f"Boom {message}", message=message)
        record.save(self.attempt.rank(rank))

    def save(self, step: int) -> None:
        write_json(self.run.latest, {"step": step})

    def stop(self, reason: str, step: int) -> None:
        self.save(step)
        StopRecord(reason=reason, step=step, attempt=self.attempt.number).save(self.run.stopped)


Play = Callable[[Ranks], int | None]


@dataclass
class Place:
    """Nodes that the test loses, ranks that the test plays, and what was asked of SLURM."""

    plays: list[Play]
    nodes: Sequence[str] = ("node1", "node2")
    has_queue: bool = True
    job: str = "7"
    host: str = "node1"
    restarts: int = 0
    deadline: float | None = None
    fabric: Fabric = field(default_factory=Fabric)
    dead: set[str] = field(default_factory=set)
    down: dict[str, str] = field(default_factory=dict)
    report: dict[str, str] | CptError = field(default_factory=dict)
    """Of the preflight."""
    is_cancelled: bool = False
    signal_at_start: int = 0
    answer: str | CptError = ""
    """To a requeue."""
    steps: list[Ranks] = field(default_factory=list)
    asked: list[Sequence[str]] = field(default_factory=list)
    """The nodes to avoid, of each requeue."""
    examined: list[int] = field(default_factory=list)
    guarded: Sequence[str] = ()

    def examine(self, run: RunPaths, attempt: int) -> dict[str, str]:
        self.examined.append(attempt)
        if isinstance(self.report, CptError):
            raise self.report
        return self.report

    def start(self, run: RunPaths, attempt: int, nodes: Sequence[str]) -> Ranks:
        self.steps.append(Ranks(self, run, run.attempt(attempt), list(nodes), self.plays.pop(0)))
        if self.signal_at_start:
            os.kill(os.getpid(), self.signal_at_start)
        return self.steps[-1]

    def answering(self, nodes: Sequence[str]) -> set[str]:
        return set(nodes) - self.dead

    def guard(self, run: RunPaths, healthy: Sequence[str]) -> None:
        self.guarded = list(healthy)

    def unfit(self, nodes: Sequence[str]) -> dict[str, str]:
        return {node: why for node, why in self.down.items() if node in nodes}

    def cancelled(self) -> bool:
        return self.is_cancelled

    def requeue(self, run: RunPaths, exclude: Sequence[str]) -> str:
        self.asked.append(list(exclude))
        if isinstance(self.answer, CptError):
            raise self.answer
        return self.answer


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A supervisor takes signals over for good; this process lives on."""
    monkeypatch.setattr(supervisor, "_STACKS", 0.0)
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path)


def keep(run: RunPaths, place: Place, *overrides: str) -> Verdict:
    return supervise(run, compose_config([*QUICK, *overrides]), place)


def begins(run: RunPaths) -> list[AttemptBegin]:
    return [AttemptBegin.load(attempt.begin) for attempt in run.attempts()]


def ends(run: RunPaths) -> list[tuple[Ending, Action]]:
    return [(end.ending, end.action) for end in (AttemptEnd.load(attempt.end) for attempt in run.attempts())]


def finish(ranks: Ranks) -> int:
    ranks.beat(phase=Phase.done)
    ranks.stop("done", 40)
    return 0


def crash_at(step: int, message: str = "") -> Play:
    def play(ranks: Ranks) -> int:
        ranks.crash(1, message, step)
        return 143

    return play


def lose(node: str) -> Play:
    def play(ranks: Ranks) -> int:
        ranks.place.dead.add(node)
        return 143

    return play


def save_when_told(ranks: Ranks) -> int | None:
    if "tell" not in ranks.events:
        return None
    ranks.stop("signal", 9)
    return 0


def crash_when_told(ranks: Ranks) -> int | None:
    if "tell" not in ranks.events:
        return None
    return crash_at(4)(ranks)


def test_a_crash_is_relaunched_on_the_same_nodes(run: RunPaths) -> None:
    place = Place([crash_at(4), finish])
    assert keep(run, place).action is Action.done
    assert [step.nodes for step in place.steps] == [["node1", "node2"]] * 2
    assert [begin.path for begin in begins(run)] == ["submit", "relaunch"]
    assert ends(run) == [(Ending.rank_crash, Action.relaunch), (Ending.done, Action.done)]
    assert place.examined == [0], "nodes are asked how they are once a job"
    assert "Boom" in run.attempt(0).first_error.read_text()
    beat = read_beat(run.supervisor)
    assert beat is not None and (beat.rank, beat.pid, beat.phase) == (-1, os.getpid(), Phase.done)


def test_a_finished_run_starts_nothing(run: RunPaths) -> None:
    StopRecord(reason="done", step=40, attempt=0).save(run.stopped)
    place = Place([])
    assert keep(run, place).exit_code == 0 and place.steps == [] and run.attempts() == []


def test_a_lost_node_is_replaced_by_the_spare(run: RunPaths) -> None:
    place = Place([lose("node2"), lambda ranks: finish(ranks) if ranks.polls > 2 else None], nodes=("node1", "node2", "node3"))
    assert keep(run, place, "slurm.spare_nodes=1").action is Action.done
    assert [step.nodes for step in place.steps] == [["node1", "node2"], ["node1", "node3"]]
    assert [begin.spares for begin in begins(run)] == [["node3"], []]
    assert place.guarded == ["node1", "node3"]
    assert attempts.load_suspects(run).blamed == {"node2": ["attempt 0: node_lost"]}


TREE = Fabric(kind=Kind.tree, paths={f"node{n}": ("spine", f"leaf{n % 3}") for n in range(1, 10)})
"""Neighbors by name are never on one switch: 3 6 9, 1 4 7, 2 5 8."""

PIPELINES = ["model=tiny", "parallel=tp2_pp2", "slurm.nodes=4", "slurm.tasks_per_node=2", "slurm.spare_nodes=1", "train.global_batch_size=80"]
"""Two pipelines of two nodes each: the first and the third in rank order, the second and the fourth. They say more than rings do."""


def seats_of(run: RunPaths, attempt: int) -> Seats:
    return Seats.load(run.attempt(attempt).seats)


def test_a_pipeline_sits_on_one_switch_and_stays_there(run: RunPaths, capfd: pytest.CaptureFixture[str]) -> None:
    place = Place([lose("node5"), crash_at(4), finish], nodes=tuple(f"node{n}" for n in range(1, 6)), fabric=TREE)
    assert keep(run, place, *PIPELINES).action is Action.done
    assert [step.nodes for step in place.steps] == [["node1", "node2", "node4", "node5"], *[["node1", "node2", "node4", "node3"]] * 2]
    assert (begins(run)[0].nodes, begins(run)[0].spares) == (["node1", "node2", "node4", "node5"], ["node3"])
    assert (begins(run)[1].nodes, begins(run)[1].spares) == (["node1", "node2", "node3", "node4"], []), "the book keeps SLURM's order"
    said = capfd.readouterr().err
    assert "ranks ordered by switches: pipeline neighbors 3.00 -> 1.00 switches" in said
    assert "attempt 1 on node1 node2 node4 node3" in said and "asked to be" not in said
    first, second = seats_of(run, 0), seats_of(run, 1)
    assert (first.nodes, first.spares, first.by_slurm) == (("node1", "node2", "node4", "node5"), ("node3",), ("node1", "node2", "node3", "node4"))
    assert second.after.kinds[Group.pp].mean == 2.0 and set(second.fabric.paths) == {"node1", "node2", "node3", "node4"}


@pytest.mark.parametrize("fabric", [Fabric(), Fabric(kind=Kind.tree, paths={f"node{n}": ("leaf1",) for n in range(1, 6)})], ids=["not known", "one switch"])
def test_without_switches_between_nodes_nothing_changes(run: RunPaths, fabric: Fabric) -> None:
    place = Place([lose("node2"), finish], nodes=tuple(f"node{n}" for n in range(1, 6)), fabric=fabric)
    keep(run, place, *PIPELINES)
    assert [step.nodes for step in place.steps] == [["node1", "node2", "node3", "node4"], ["node1", "node3", "node4", "node5"]]
    assert not run.attempt(0).seats.exists()


def test_an_srun_that_starts_nothing_in_an_order_is_not_asked_again(run: RunPaths, capfd: pytest.CaptureFixture[str]) -> None:
    place = Place([lambda _: 1, finish], nodes=tuple(f"node{n}" for n in range(1, 6)), fabric=TREE)
    assert keep(run, place, *PIPELINES).action is Action.done
    assert [step.nodes for step in place.steps] == [["node1", "node2", "node4", "node5"], ["node1", "node2", "node3", "node4"]]
    assert "from here on in SLURM's own" in capfd.readouterr().err and not run.attempt(1).seats.exists()


def test_ranks_that_sit_elsewhere_are_named_once(run: RunPaths, capfd: pytest.CaptureFixture[str]) -> None:
    def astray(ranks: Ranks) -> int | None:
        for rank in range(8):
            ranks.beat(rank, ["node1", "node2", "node3", "node4"][rank // 2])  # as srun would do by itself
        return finish(ranks) if ranks.polls > 3 else None

    keep(run, Place([astray], nodes=tuple(f"node{n}" for n in range(1, 6)), fabric=TREE), *PIPELINES)
    assert capfd.readouterr().err.count("4 ranks are not where they were asked to be: rank 4 is on node3, not on node4") == 1


def test_without_a_spare_it_comes_back_through_the_queue(run: RunPaths) -> None:
    place = Place([lose("node2")])
    verdict = keep(run, place)
    assert (verdict.ending, verdict.action, verdict.exit_code) == (Ending.node_lost, Action.requeue, 75)
    assert verdict.message.startswith("lost node2") and len(place.steps) == 1


def test_a_node_that_now_failed_twice_leaves_no_room(run: RunPaths) -> None:
    Suspects(blamed={"node2": ["attempt 0: hang"]}).save(run.suspects)
    place = Place([crash_at(4, "CUDA error")])
    assert keep(run, place).action is Action.requeue
    assert list(attempts.load_suspects(run).excluded) == ["node2"]


def test_suspects_and_nodes_that_slurm_calls_down_get_no_ranks(run: RunPaths) -> None:
    Suspects(excluded={"node1": "failed 2 times"}).save(run.suspects)
    place = Place([finish], nodes=("node1", "node2", "node3", "node4", "node5"), down={"node3": "SLURM calls it down"})
    assert keep(run, place).action is Action.done
    assert place.steps[0].nodes == ["node2", "node4"] and begins(run)[0].spares == ["node5"]


def test_too_few_nodes_start_nothing_and_ask_the_queue(run: RunPaths) -> None:
    place = Place([], down={"node2": "SLURM calls it down"}, restarts=1)
    verdict = keep(run, place)
    assert (verdict.ending, verdict.action) == (Ending.launch_failure, Action.requeue)
    assert verdict.message.startswith("1 of 2 nodes can be used, 2 are needed (node2: SLURM calls it down)")
    assert (begins(run)[0].path, begins(run)[0].nodes) == ("requeue", ["node1", "node2"])


def test_a_preflight_that_fails_on_every_node_has_its_budget(run: RunPaths) -> None:
    verdicts = [keep(run, Place([], report=CptError("preflight: none of 2 nodes reported"), restarts=number)) for number in range(3)]
    assert [verdict.action for verdict in verdicts] == [Action.requeue, Action.requeue, Action.hold]
    assert verdicts[0].ending is Ending.launch_failure and "none of 2 nodes" in verdicts[0].message
    assert verdicts[2].exit_code == 80


def test_a_node_that_fails_its_preflight_is_left_out_and_remembered(run: RunPaths, capfd: pytest.CaptureFixture[str]) -> None:
    place = Place([finish], nodes=("node1", "node2", "node3"), report={"node1": "7 of 8 GPUs"})
    assert keep(run, place).action is Action.done
    assert place.steps[0].nodes == ["node2", "node3"]
    assert attempts.load_suspects(run).excluded == {"node1": "preflight: 7 of 8 GPUs"}
    assert "node1 is left out: 7 of 8 GPUs" in capfd.readouterr().err


def test_without_a_preflight_nobody_is_asked(run: RunPaths) -> None:
    place = Place([finish], report=CptError("asked"))
    assert keep(run, place, "slurm.preflight=false").action is Action.done and place.examined == []


def after(polls: int, number: signal.Signals, then: Play) -> Play:
    """This process is signaled at that poll; afterwards the ranks do as `then` says."""

    def play(ranks: Ranks) -> int | None:
        if ranks.polls == polls:
            os.kill(os.getpid(), number)
        return then(ranks) if ranks.polls > polls else None

    return play


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_is_passed_on_once_and_the_ranks_save(run: RunPaths, number: signal.Signals) -> None:
    place = Place([after(3, number, save_when_told)])
    verdict = keep(run, place)
    assert place.steps[0].events == ["tell"]
    assert (verdict.ending, verdict.action, verdict.exit_code) == (Ending.preempted, Action.requeue, 75)
    assert RunState.load(run.state).streak == {}


def test_near_its_end_a_signal_is_about_the_time_limit(run: RunPaths) -> None:
    place = Place([after(3, signal.SIGUSR2, save_when_told)], deadline=time.time() + 30)
    assert keep(run, place).ending is Ending.time_limit


def test_who_was_told_to_stop_is_not_relaunched(run: RunPaths) -> None:
    place = Place([after(3, signal.SIGTERM, crash_when_told)])
    verdict = keep(run, place)
    assert verdict.action is Action.requeue and len(place.steps) == 1


def test_ranks_that_were_not_there_yet_are_told_at_once(run: RunPaths) -> None:
    place = Place([save_when_told], signal_at_start=signal.SIGUSR2)
    assert keep(run, place).ending is Ending.preempted
    assert place.steps[0].events == ["tell"]


def test_a_cancelled_job_does_not_come_back(run: RunPaths) -> None:
    place = Place([after(3, signal.SIGTERM, save_when_told)], is_cancelled=True)
    verdict = keep(run, place)
    assert (verdict.ending, verdict.action, verdict.exit_code) == (Ending.stopped, Action.done, 0)


def test_without_a_queue_a_requeue_is_another_attempt_here(run: RunPaths) -> None:
    place = Place([crash_at(4), crash_at(5), finish], has_queue=False)
    assert keep(run, place, "slurm.relaunch=false").action is Action.done
    assert [action for _, action in ends(run)] == [Action.requeue, Action.requeue, Action.done]


def outlive(ranks: Ranks) -> None:
    if ranks.polls == 1:
        ranks.crash(1)


def test_ranks_that_outlive_the_first_crash_are_killed(run: RunPaths) -> None:
    place = Place([outlive, finish])
    assert keep(run, place).action is Action.done
    assert place.steps[0].events == ["kill"]
    assert "slurm.kill_seconds" in AttemptEnd.load(run.attempt(0).end).message


def test_after_a_crash_a_dead_node_is_not_waited_for(run: RunPaths) -> None:
    def play(ranks: Ranks) -> None:
        ranks.place.dead.add("node2")
        outlive(ranks)

    place = Place([play, finish], nodes=("node1", "node2", "node3"))
    assert keep(run, place, "slurm.kill_seconds=60").action is Action.done
    assert place.steps[0].events == ["kill"] and place.steps[1].nodes == ["node1", "node3"]
    assert ends(run)[0] == (Ending.node_lost, Action.relaunch)


def test_a_silent_node_ends_the_step(run: RunPaths) -> None:
    def play(ranks: Ranks) -> None:
        ranks.beat(0, "node1", at=float(ranks.polls))
        if ranks.polls == 1:
            ranks.beat(1, "node2")
            ranks.place.dead.add("node2")

    place = Place([play, finish], nodes=("node1", "node2", "node3"))
    assert keep(run, place).action is Action.done
    assert place.steps[0].events == ["kill"], "no stacks of ranks that only wait for it"
    assert "no heartbeat for" in AttemptEnd.load(run.attempt(0).end).message and place.steps[1].nodes == ["node1", "node3"]


def test_a_hang_leaves_its_stacks_before_it_is_ended(run: RunPaths) -> None:
    def play(ranks: Ranks) -> None:
        for rank, node in enumerate(ranks.nodes):
            ranks.beat(rank, node, step=5 - rank, at=float(ranks.polls))

    place = Place([play, finish])
    assert keep(run, place, "slurm.start_seconds=0.3", "slurm.hang_seconds=0.3").action is Action.done
    assert place.steps[0].events == ["stacks, and of [1] from outside", "kill"]
    assert ends(run)[0] == (Ending.hang, Action.relaunch)


def test_limits_are_shown_and_kept_once_they_are_measured(run: RunPaths, capfd: pytest.CaptureFixture[str]) -> None:
    def play(ranks: Ranks) -> int | None:
        if ranks.polls > 20:
            return finish(ranks)
        step = min(ranks.polls, 10)
        ranks.beat(step=step, since=90.0 * step)
        return None

    assert keep(run, Place([play])).action is Action.done
    said = capfd.readouterr().err
    assert said.count("taken for a hang from now on") == 1, "only when it changes"
    assert "start 1800 s, step 900 s, evaluate 1800 s, save 1800 s without progress" in said
    assert RunState.load(run.state).longest == {"step": 90.0}


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept, at once."""
    slept: list[float] = []
    monkeypatch.setattr(supervisor.time, "sleep", slept.append)
    return slept


REQUEUE = Verdict(ending=Ending.node_lost, action=Action.requeue, message="lost node2")


def depart(run: RunPaths, place: Place, verdict: Verdict = REQUEUE) -> int:
    return leave(run, compose_config(QUICK), place, verdict)


def test_a_requeued_job_waits_for_slurm_to_end_it(run: RunPaths, patience: list[float]) -> None:
    place = Place([])
    assert depart(run, place) == 75
    assert place.asked == [[]] and patience == [60]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_site_that_refuses_a_requeue_may_requeue_by_exit_code(run: RunPaths, patience: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    assert depart(run, Place([], answer=SlurmFailed("scontrol: Access denied"))) == 75
    assert patience == [] and "Access denied" in capfd.readouterr().err


def test_a_chain_goes_on_as_the_next_job_without_the_excluded(run: RunPaths, patience: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    RunState(job="7", streak={"node_lost": 2}).save(run.state)
    Suspects(excluded={"node9": "failed 2 times", "node2": "failed 2 times"}).save(run.suspects)
    place = Place([], answer="8")
    assert depart(run, place) == 0
    assert place.asked == [["node2", "node9"]] and patience == []
    assert RunState.load(run.state) == RunState(job="7", streak={"node_lost": 2}, successor="8")
    assert "goes on as job 8, without node2 node9" in capfd.readouterr().err


@pytest.mark.parametrize(("action", "code"), [(Action.done, 0), (Action.hold, 80), (Action.fail, 1)])
def test_what_does_not_come_back_asks_for_nothing(run: RunPaths, action: Action, code: int) -> None:
    place = Place([])
    assert depart(run, place, Verdict(ending=Ending.no_progress, action=action, message="")) == code
    assert place.asked == []


def test_a_run_without_a_config_is_the_users(run: RunPaths, capfd: pytest.CaptureFixture[str]) -> None:
    assert supervisor.main(["--run", str(run.root), "--", "srun", sys.executable]) == 2
    assert "cpt launch" in capfd.readouterr().err
