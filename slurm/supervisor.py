"""Keeps one run alive on the nodes that its job has: preflight, ranks, watch, verdict; relaunch here or come back through the queue.

The batch script hands over to this (`python -m slurm.supervisor --run DIR -- srun ...`), a sweep's trial and the local scheduler call
it as a function. It runs outside of any container, imports nothing heavy, and learns everything from files and SLURM's commands.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.attempts import Action, Ending, Suspects
from cpt.core.errors import EXIT_DONE, EXIT_RESUME, CptError
from cpt.core.heartbeat import Beat, Heart, Phase, read_beats
from cpt.core.paths import RunPaths
from cpt.topology import Seats, seats
from slurm import attempts, first_error
from slurm.recovery import Evidence, Verdict, decide, suspect
from slurm.steps import Allocation, Place, Step
from slurm.watch import Monitor, Trouble, limits

_NEAR = 120.0
"""Seconds. A stop that comes this close to the deadline is about the time limit (SLURM may send its signal a minute early)."""

_STACKS = 2.0
"""Seconds that ranks have for writing down their stacks."""


def supervise(run: RunPaths, config: RunConfig, place: Place) -> Verdict:
    """Attempt after attempt, until the run is done or this job cannot go on. A `requeue` is only said here; the caller asks for it."""
    if verdict := attempts.finished(run):
        _say(verdict.message)
        return verdict
    return Supervisor(run, config, place).keep()


@dataclass
class Supervisor:
    """One job's work on one run."""

    run: RunPaths
    config: RunConfig
    place: Place
    told: bool = False
    """SLURM, or a person, wants this job to stop."""
    step: Step | None = None
    gone: set[str] = field(default_factory=set)
    """Nodes of this job that were lost."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Nodes that failed their preflight."""
    seats: Seats | None = None
    """Of the last attempt of this job, where ranks have an order of their own."""
    in_order: bool = True
    """False once srun did not start ranks in the order that it was given."""
    looked: int = -1
    """The last attempt whose ranks were found, rightly seated or not."""
    shown: str = ""
    """The limits as they were last shown."""

    def keep(self) -> Verdict:
        """The table of contents of a job's life."""
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._hear)
        with Heart(self.run.supervisor, -1, socket.gethostname(), self.config.slurm.heartbeat_seconds):
            return self._attempts()

    def _attempts(self) -> Verdict:
        path, verdict = "requeue" if self.place.restarts else "submit", None
        while True:
            try:
                if verdict is None and self.config.slurm.preflight:
                    self._preflight()
                nodes, spares = self._choose()
            except CptError as error:
                return self._never_started(path, str(error))
            attempt = attempts.begin(self.run, self._start(path, nodes, spares), self._down)
            if self.seats:
                self.seats.save(self.run.attempt(attempt).seats)
            verdict = self._attempt(attempt, self.seats.nodes if self.seats else nodes)
            if verdict.action is not Action.relaunch and (verdict.action is not Action.requeue or self.told or self.place.has_queue):
                return verdict
            path = "relaunch"

    def _preflight(self) -> None:
        """Before the first attempt of a job every node is asked how it is; whoever is unfit is left out and remembered."""
        self.unfit = self.place.examine(self.run, attempts.next_number(self.run))
        for node, why in self.unfit.items():
            _say(f"{node} is left out: {why}")
        if self.unfit:
            known = attempts.load_suspects(self.run)
            Suspects(blamed=known.blamed, excluded=known.excluded | {node: f"preflight: {why}" for node, why in self.unfit.items()}).save(self.run.suspects)

    def _choose(self) -> tuple[list[str], list[str]]:
        """(nodes for ranks, healthy ones to spare) in SLURM's own order. Raises `CptError` when they are too few."""
        out = dict.fromkeys(self.gone, "lost") | self.place.unfit(self.place.nodes) | attempts.load_suspects(self.run).excluded | self.unfit
        healthy = [node for node in self.place.nodes if node not in out]
        if len(healthy) < self.config.slurm.nodes:
            reasons = "; ".join(f"{node}: {why}" for node, why in out.items() if node in self.place.nodes)
            raise CptError(f"{len(healthy)} of {len(self.place.nodes)} nodes can be used, {self.config.slurm.nodes} are needed ({reasons})")
        self.seats = self._seat(healthy)
        chosen = set(self.seats.nodes if self.seats else healthy[: self.config.slurm.nodes])
        return [node for node in healthy if node in chosen], [node for node in healthy if node not in chosen]

    def _seat(self, healthy: Sequence[str]) -> Seats | None:
        """Who sits where, by the switches between nodes; whoever still has a node keeps it."""
        if not self.in_order:
            return None
        found = seats(healthy, self.place.fabric, self.config, self.seats.nodes if self.seats else ())
        if found:
            _say(found.line)
        return found

    def _attempt(self, attempt: int, nodes: Sequence[str]) -> Verdict:
        _say(f"attempt {attempt} on {' '.join(nodes)}")
        monitor = Monitor(self.config.slurm, longest=dict(attempts.load_state(self.run).longest))
        self.step = self.place.start(self.run, attempt, nodes)
        if self.told:
            self.step.tell()
        trouble = self._watch(attempt, nodes, self.step, monitor)
        if trouble:
            _say(f"{trouble.ending}: {trouble.message}")
            self._end_step(attempt, self.step, trouble)
        code = self.step.poll() or 0
        self.step = None
        verdict = self._judge(attempt, nodes, code, trouble, monitor)
        if verdict.ending is Ending.launch_failure and self.seats and self.seats.ordered:
            self.in_order = False
            _say("no rank was started in the order of the switches; from here on in SLURM's own")
        if verdict.ending not in (Ending.done, Ending.stopped, Ending.preempted, Ending.time_limit):
            first_error.write(self.run, attempt)
        return verdict

    def _watch(self, attempt: int, nodes: Sequence[str], step: Step, monitor: Monitor) -> Trouble | None:
        """Returns when the step has ended (None) or must be ended."""
        paths, crashed = self.run.attempt(attempt), 0.0
        while step.poll() is None:
            now = time.monotonic()
            self.place.guard(self.run, [node for node in self.place.nodes if node not in self.gone])
            monitor.see(beats := read_beats(paths), now)
            self._look_around(attempt, nodes, beats)
            if trouble := monitor.trouble(now, self.place.answering):
                return trouble
            if next(paths.root.glob("rank_*.json"), None):
                crashed = crashed or now
                if trouble := self._after_a_crash(now - crashed, nodes):
                    return trouble
            self._show_limits(monitor)
            time.sleep(min(0.5, self.config.slurm.heartbeat_seconds / 2))
        return None

    def _look_around(self, attempt: int, nodes: Sequence[str], beats: Sequence[Beat]) -> None:
        """srun was told who sits where; once all ranks have said where they are, anybody elsewhere is named."""
        if self.seats is None or self.looked == attempt or len(beats) < self.config.slurm.world_size:
            return
        self.looked = attempt
        asked = {beat.rank: nodes[beat.rank // self.config.slurm.tasks_per_node] for beat in beats}
        if astray := [beat for beat in beats if beat.host != asked[beat.rank]]:
            first = astray[0]
            _say(f"{len(astray)} ranks are not where they were asked to be: rank {first.rank} is on {first.host}, not on {asked[first.rank]}")

    def _after_a_crash(self, seconds: float, nodes: Sequence[str]) -> Trouble | None:
        """srun ends the other ranks by itself, except those of a dead node, for which it would wait as long as SLURM does."""
        if seconds < 1:
            return None
        if lost := self._lost(nodes):
            return Trouble(ending=Ending.node_lost, nodes=lost, ranks=(), message=f"lost {' '.join(lost)}: ranks lost their peers there", seconds=seconds)
        if seconds < self.config.slurm.kill_seconds:
            return None
        message = f"ranks outlived the first crash by {seconds:.0f} s (slurm.kill_seconds)"
        return Trouble(ending=Ending.rank_crash, nodes=(), ranks=(), message=message, seconds=seconds)

    def _show_limits(self, monitor: Monitor) -> None:
        """What is taken for a hang, whenever a measurement has moved it."""
        allowed = limits(self.config.slurm, monitor.longest)
        text = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in allowed.items() if phase is not Phase.done)
        if monitor.longest and text != self.shown:
            self.shown = text
            _say(f"taken for a hang from now on: {text} without progress")

    def _end_step(self, attempt: int, step: Step, trouble: Trouble) -> None:
        """A hang leaves its stacks in the ranks' logs first."""
        if trouble.ending is Ending.hang:
            step.stacks([beat for beat in read_beats(self.run.attempt(attempt)) if beat.rank in trouble.ranks])
            time.sleep(_STACKS)
        step.kill()

    def _judge(self, attempt: int, nodes: Sequence[str], code: int, trouble: Trouble | None, monitor: Monitor) -> Verdict:
        evidence = attempts.gather(self.run, attempt, code)
        failed = not (evidence.stop or (evidence.cause and evidence.cause.outcome == "fatal"))
        if failed:
            self.gone |= set(trouble.nodes) if trouble and trouble.ending is Ending.node_lost else set(self._lost(nodes))
        evidence = dataclasses.replace(
            evidence,
            trouble=trouble,
            lost_nodes=[node for node in nodes if node in self.gone],
            told=self.told,
            cancelled=self.told and self.place.cancelled(),
            near_limit=self.place.deadline is not None and time.time() > self.place.deadline - _NEAR,
        )
        evidence = dataclasses.replace(evidence, room=self._room(evidence))
        verdict = attempts.end(self.run, evidence, self.config.slurm, monitor.longest)
        _say(f"{verdict.ending}, {verdict.action}: {verdict.message}")
        return verdict

    def _room(self, evidence: Evidence) -> bool:
        """Whether enough nodes are left, without those that this very attempt makes suspects."""
        draft, _ = decide(evidence, attempts.load_state(self.run), self.config.slurm)
        out = {*self.gone, *self.unfit, *suspect(attempts.load_suspects(self.run), draft, evidence.attempt).excluded}
        return sum(node not in out for node in self.place.nodes) >= self.config.slurm.nodes

    def _lost(self, nodes: Sequence[str]) -> list[str]:
        """A rank that lost its peer ends before SLURM knows why, so every node is asked itself."""
        answering = self.place.answering(nodes)
        return [node for node in nodes if node not in answering]

    def _never_started(self, path: str, message: str) -> Verdict:
        """An attempt without ranks, counted like any other that brings no progress; other nodes may do better."""
        attempt = attempts.begin(self.run, self._start(path, self.place.nodes, ()), self._down)
        trouble = Trouble(ending=Ending.launch_failure, nodes=(), ranks=(), message=message)
        verdict = attempts.end(self.run, dataclasses.replace(attempts.gather(self.run, attempt, -1), trouble=trouble), self.config.slurm)
        _say(f"{verdict.ending}, {verdict.action}: {verdict.message}")
        return verdict

    def _start(self, path: str, nodes: Sequence[str], spares: Sequence[str]) -> attempts.Start:
        return attempts.Start(job=self.place.job, restarts=self.place.restarts, nodes=nodes, path=path, spares=spares, host=self.place.host)

    def _down(self, nodes: Sequence[str]) -> Sequence[str]:
        return sorted(self.place.unfit(nodes))

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.told = True
        if self.step:
            self.step.tell()


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
    sys.stderr.flush()


def leave(run: RunPaths, config: RunConfig, place: Place, verdict: Verdict) -> int:
    """Do what the verdict asks of SLURM; returns the job's exit code. After a requeue SLURM ends this process."""
    if verdict.action is not Action.requeue:
        return verdict.exit_code
    exclude = sorted(attempts.load_suspects(run).excluded)
    try:
        successor = place.requeue(run, exclude)
    except CptError as error:  # a site may not let its users requeue; the next best is a job that SLURM starts when this one is gone
        _say(f"could not requeue ({error}): exit code {EXIT_RESUME} for a site that requeues by it")
        return EXIT_RESUME
    if successor:
        dataclasses.replace(attempts.load_state(run), successor=successor).save(run.state)
        _say(f"goes on as job {successor}" + (f", without {' '.join(exclude)}" if exclude else ""))
        return EXIT_DONE
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(60)
    return EXIT_RESUME


def main(arguments: Sequence[str] | None = None) -> int:
    """The batch script's last line."""
    parser = argparse.ArgumentParser(prog="slurm.supervisor", description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("step", nargs="+", help="the srun line of the ranks")
    given = parser.parse_args(arguments)
    run = RunPaths(given.run)
    try:
        config = read_config(run.config)
        place = Allocation(config, given.step)
        if place.taken_back():
            _say("SLURM took this job back while it began; no attempt is counted")
            return EXIT_RESUME
        return leave(run, config, place, supervise(run, config, place))
    except CptError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
