"""Everything that goes wrong in a month on 480 GPUs, done on purpose to a small run on a real SLURM: what is expected of it, what it cost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cpt.core.attempts import Action, Ending
from slurm import client
from slurm.devcluster import DevCluster
from tests.slurm.conftest import Submitted, wait_for

SPARE = ["slurm.spare_nodes=1"]
STEPS, SAVE_EVERY = 60, 5
END = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@dataclass(frozen=True)
class Scene:
    """A run under way, and the cluster to do something to."""

    cluster: DevCluster
    job: Submitted

    @property
    def nodes(self) -> list[str]:
        return self.job.begins()[0].nodes


Strike = Callable[[Scene], None]


def nothing(_: Scene) -> None:
    """The fault comes by itself."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`expected`: how the attempt that was struck ended, and what followed. `behave`: what stand-in ranks do by themselves."""

    name: str
    expected: tuple[Ending, Action] | None
    says: str
    """In words, for the table."""
    settings: Sequence[str] = ()
    behave: dict[str, Any] = field(default_factory=dict)
    strike: Strike = nothing
    heal: Strike = nothing
    final: str = "COMPLETED"

    @property
    def folder(self) -> str:
        """Of its run."""
        return self.name.replace(" ", "_").replace(",", "")


@dataclass(frozen=True)
class Outcome:
    """What it cost: steps computed again, and seconds from the blow to the end of the next step. None where no next step is due."""

    fault: Fault
    job: Submitted
    state: str
    interval: int
    """Steps between two checkpoints."""
    steps_lost: int | None = None
    seconds: float | None = None
    path: str = ""


def play(fault: Fault, start: Callable[..., Submitted], cluster: DevCluster, interval: int = SAVE_EVERY) -> Outcome:
    """Start, strike two steps after the first checkpoint, wait for the way back and the end, heal."""
    job = start(fault.folder, [*fault.settings, "+slurm.extra.exclusive=''"], **fault.behave)
    scene = Scene(cluster, job)
    try:
        wait_for(lambda: len(job.rows(0)) >= interval + 2 or job.state() in END, f"{fault.name}: the first checkpoint: {job.log()}")
        struck = None
        if fault.strike is not nothing:
            struck = time.time()
            fault.strike(scene)
        state = job.ended()
    finally:
        fault.heal(scene)
    return measure(Outcome(fault, job, state, fault.behave.get("save_every", interval)), struck)


def measure(outcome: Outcome, struck: float | None) -> Outcome:
    """Add the cost, once a second attempt has made a step. `struck`: seconds since the epoch; None for the end of the first attempt's last step."""
    job = outcome.job
    before, after = job.rows(0), job.rows(1)
    if not after:
        return outcome
    if struck is None:
        struck = before[-1]["ts_ms"] / 1000
    lost = before[-1]["step"] - job.begins()[1].step
    return replace(outcome, steps_lost=lost, seconds=after[0]["ts_ms"] / 1000 - struck, path=job.begins()[1].path)


def rank_process(job: Submitted, rank: int) -> int:
    """The pid, on this machine, of one rank of the job; found by what SLURM put into its environment."""
    wanted = {f"SLURM_PROCID={rank}".encode(), f"SLURM_JOB_ID={job.job}".encode()}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = set((path / "environ").read_bytes().split(b"\0"))
            command = (path / "cmdline").read_bytes()
            if wanted <= environment and command.endswith(str(job.run.root).encode() + b"\0") and b"CPT_ATTEMPT=0" in environment:
                return int(path.name)
    raise AssertionError(f"no process of rank {rank}")


def send(rank: int, number: signal.Signals) -> Strike:
    return lambda scene: os.kill(rank_process(scene.job, rank), number)


def lose_power(index: int) -> Strike:
    return lambda scene: scene.cluster.kill(scene.nodes[index])


def power_back(index: int) -> Strike:
    def up(scene: Scene) -> None:
        scene.cluster.up(scene.nodes[index])
        wait_for(lambda: scene.nodes[index] in scene.cluster.idle(), f"{scene.nodes[index]} to come back")

    return up


def cut(scene: Scene) -> None:
    scene.cluster.cut(scene.nodes[1])


def mend(scene: Scene) -> None:
    scene.cluster.heal(scene.nodes[1])
    wait_for(lambda: scene.nodes[1] in scene.cluster.idle(), f"{scene.nodes[1]} to come back")


def want_its_nodes(scene: Scene) -> None:
    """A more urgent job asks for the very nodes of this one."""
    script = scene.job.run.root / "urgent.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH --partition=urgent --nodes=2 --nodelist={','.join(scene.nodes)} --exclusive --output=/dev/null\nsleep 3\n")
    client.submit(scene.job.config.cluster, script)


def restart_controller(scene: Scene) -> None:
    scene.cluster.stop_controller()
    time.sleep(3)
    scene.cluster.start_controller()


RELAUNCH, REQUEUE = "relaunch on healthy nodes of the allocation", "requeue"

FAULTS = [
    Fault(
        name="power loss of a worker node, spare",
        expected=(Ending.node_lost, Action.relaunch),
        says=RELAUNCH,
        settings=SPARE,
        strike=lose_power(1),
        heal=power_back(1),
    ),
    Fault(name="power loss of a worker node, no spare", expected=(Ending.node_lost, Action.requeue), says=REQUEUE, strike=lose_power(1), heal=power_back(1)),
    Fault(
        name="power loss of the head node, spare",
        expected=(Ending.node_lost, Action.requeue),
        says=f"{REQUEUE}, asked for by the deputy",
        settings=SPARE,
        strike=lose_power(0),
        heal=power_back(0),
    ),
    Fault(
        name="power loss of the head node, no spare",
        expected=(Ending.node_lost, Action.requeue),
        says=f"{REQUEUE}, asked for by the deputy",
        strike=lose_power(0),
        heal=power_back(0),
    ),
    Fault(name="link cut, spare", expected=(Ending.node_lost, Action.relaunch), says=RELAUNCH, settings=SPARE, strike=cut, heal=mend),
    Fault(name="link cut, no spare", expected=(Ending.node_lost, Action.requeue), says=REQUEUE, strike=cut, heal=mend),
    Fault(
        name="rank exit 1",
        expected=(Ending.rank_crash, Action.relaunch),
        says="relaunch on the same nodes",
        behave={"fault": {"rank": 3, "step": 8, "kind": "exit", "attempts": 1}},
    ),
    Fault(name="rank SIGKILL", expected=(Ending.rank_crash, Action.relaunch), says="relaunch on the same nodes", strike=send(2, signal.SIGKILL)),
    Fault(
        name="rank SIGSTOP (hang)",
        expected=(Ending.hang, Action.relaunch),
        says="named after slurm.hang_seconds (here 6 s), stacks dumped, relaunch",
        settings=["slurm.hang_seconds=6"],
        strike=send(3, signal.SIGSTOP),
    ),
    Fault(
        name="preemption by a higher partition",
        expected=(Ending.preempted, Action.requeue),
        says="ranks save, requeue",
        strike=want_its_nodes,
    ),
    Fault(
        name="time limit",
        expected=(Ending.time_limit, Action.requeue),
        says="ranks save, requeue; the chain goes on until done",
        # SLURM looks at time limits every half minute, so the signal comes 10 to 40 seconds after the start.
        settings=["slurm.time=1", "slurm.signal_lead=50"],
        behave={"steps": 110, "save_every": 1000, "seconds": 0.2},
    ),
    Fault(
        name="deterministic crash",
        expected=(Ending.rank_crash, Action.relaunch),
        says="FAILED at the second identical crash without progress",
        behave={"fault": {"rank": 1, "step": 8, "kind": "exit"}},
        final="FAILED",
    ),
    Fault(name="slurmctld restarted", expected=None, says="nothing happens to the run", strike=restart_controller),
    Fault(
        name="disk full during a save",
        expected=(Ending.fatal, Action.fail),
        says="FAILED at once, with what to free; submitted again it goes on from the last complete checkpoint",
        behave={"fault": {"rank": 0, "step": 8, "kind": "disk", "attempts": 1}},
        final="FAILED",
    ),
    Fault(
        name="anomaly that no setting lets pass",
        expected=(Ending.anomaly, Action.hold),
        says="held at once, with the update and why",
        behave={"fault": {"rank": -1, "step": 8, "kind": "anomaly"}},
        final="FAILED",
    ),
]
