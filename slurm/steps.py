"""Where ranks run: a place with nodes, on which one step of ranks at a time is started, told, ended. SLURM's allocation; `slurm.here` is the other."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Protocol

from cpt.config.run import RunConfig
from cpt.core.artifacts import write_text
from cpt.core.errors import CptError
from cpt.core.heartbeat import Beat
from cpt.core.paths import AttemptPaths, RunPaths
from cpt.topology import Fabric
from slurm import client, deputy, preflight, script
from slurm.environment import ATTEMPT, DEADLINE, master_port
from slurm.probe import answering
from slurm.rank import STACKS


class Step(Protocol):
    """The ranks of one attempt."""

    def poll(self) -> int | None:
        """None while any rank lives; then the first failure's code, or 0."""

    def tell(self) -> None:
        """Ask every rank to save and leave."""

    def stacks(self, blamed: Sequence[Beat]) -> None:
        """Have every rank that still can write down where it is; those blamed are looked at from outside, where py-spy is."""

    def kill(self) -> None:
        """End every rank that can be reached, at once, and wait for it."""


class Place(Protocol):
    """The nodes that this job has. `restarts` counts requeues, `deadline` is in seconds since the epoch."""

    has_queue: bool

    job: str
    host: str
    """Where this process runs."""
    restarts: int
    nodes: Sequence[str]
    deadline: float | None
    fabric: Fabric
    """Flat where ranks are to be left in the order of `nodes`."""

    def examine(self, run: RunPaths, attempt: int) -> dict[str, str]:
        """Node -> why no rank should start there. Raises `CptError` when not one node says how it is."""

    def start(self, run: RunPaths, attempt: int, nodes: Sequence[str]) -> Step:
        """Ranks on these nodes: the first ranks on the first node, and so on."""

    def answering(self, nodes: Sequence[str]) -> set[str]:
        """Those whose SLURM daemon answers."""

    def guard(self, run: RunPaths, healthy: Sequence[str]) -> None:
        """See to it that the loss of this very host would be noticed; called again and again."""

    def unfit(self, nodes: Sequence[str]) -> dict[str, str]:
        """Node -> SLURM's reason, of those that it calls down or drained."""

    def cancelled(self) -> bool:
        """Whether somebody wants this job gone for good: SLURM would requeue even that."""

    def requeue(self, run: RunPaths, exclude: Sequence[str]) -> str:
        """Come back through the queue, without these nodes. Returns the id of the next job when it is another one."""


@dataclass
class Allocation:
    """This job's nodes. `argv` is the srun line of the batch script; nodes and log are put into it here."""

    config: RunConfig
    argv: Sequence[str]
    has_queue: bool = True
    job: str = field(default_factory=lambda: os.environ["SLURM_JOB_ID"])
    restarts: int = field(default_factory=lambda: int(os.environ.get("SLURM_RESTART_COUNT", "0")))

    def __post_init__(self) -> None:
        self.nodes: Sequence[str] = client.host_names(self.config.cluster, os.environ["SLURM_JOB_NODELIST"])
        self.deadline = self._deadline()
        self.fabric = self._fabric()
        self.host = os.environ["SLURMD_NODENAME"]
        self._daemons = client.daemons(self.config.cluster, self.nodes)
        self._spoken = os.fstat(2).st_size
        self._deputy: subprocess.Popen[bytes] | None = None
        self._deputy_node = ""

    def _deadline(self) -> float | None:
        end = client.end_time(self.config.cluster, self.job)
        return end - self.config.slurm.signal_lead if end else None

    def _fabric(self) -> Fabric:
        """A topology that makes no sense is the site's to mend, and no reason to keep a job from its work."""
        with suppress(CptError):
            return client.fabric(self.config.cluster) if self.config.slurm.topology else Fabric()
        return Fabric()

    def examine(self, run: RunPaths, attempt: int) -> dict[str, str]:
        """One task per node, where its ranks would run; a dead node is not asked, srun would wait for it."""
        alive = self.answering(self.nodes)
        step = script.preflight_step(self.config, run, sys.executable)
        nodes = [node for node in self.nodes if node in alive]
        unfit = preflight.examine(run, self.config, step, attempt, nodes, lambda argv: subprocess.Popen(argv, env=_inherited(), start_new_session=True))
        return unfit | {node: "SLURM's daemon there does not answer" for node in self.nodes if node not in alive}

    def start(self, run: RunPaths, attempt: int, nodes: Sequence[str]) -> SrunStep:
        """One srun step, named after its attempt."""
        name = f"cpt-{attempt:03d}"
        log = str(run.attempt(attempt).log("%t")).replace("%", "%%").replace("%%t.log", "%t.log")
        first, *rest = self.argv
        where, rest, own = self._seated(run.attempt(attempt), nodes, rest)
        argv = [first, f"--job-name={name}", *where, f"--output={log}", *rest]
        child = subprocess.Popen(argv, env=_inherited() | own | meeting(nodes[0], self.job, attempt, self.deadline), start_new_session=True)
        return SrunStep(self.config, run.attempt(attempt), self.job, name, child)

    def _seated(self, paths: AttemptPaths, nodes: Sequence[str], rest: Sequence[str]) -> tuple[list[str], list[str], dict[str, str]]:
        """srun deals ranks in the allocation's own order, however `--nodelist` is written; any other order it reads from a file, a line per rank.

        From 24.05 on it refuses `--nodes` beside such a file, and always a `--nodelist`; both are in the file.
        """
        if list(nodes) == [node for node in self.nodes if node in nodes]:
            return [f"--nodelist={','.join(nodes)}"], [*rest], {}
        each = self.config.slurm.tasks_per_node
        write_text(paths.hostfile, "".join(f"{node}\n" * each for node in nodes))
        counted = f"--nodes={self.config.slurm.nodes}"
        return ["--distribution=arbitrary"], [word for word in rest if word != counted], {"SLURM_HOSTFILE": str(paths.hostfile)}

    def answering(self, nodes: Sequence[str]) -> set[str]:
        """Asked directly, all at once."""
        return answering(self._daemons, nodes)

    def guard(self, run: RunPaths, healthy: Sequence[str]) -> None:
        """Where SLURM would not notice the loss of this host (`--no-kill`), somebody on another node must."""
        others = [node for node in healthy if node != self.host]
        if not others or (self._deputy and self._deputy_node in others and self._deputy.poll() is None):
            return
        self._deputy_node = others[-1]
        where = ["--nodes=1", "--ntasks=1", "--cpus-per-task=1", f"--nodelist={self._deputy_node}", "--job-name=cpt-deputy"]
        log = f"--output={str(run.deputy_log).replace('%', '%%')}"
        argv = ["srun", "--overlap", *where, log, "--open-mode=append", *deputy.command(sys.executable, run, self._requeue_id(), self.host)]
        with open(run.deputy_log, "ab") as words:
            self._deputy = subprocess.Popen(argv, env=_inherited(), stdout=words, stderr=words, start_new_session=True)

    def unfit(self, nodes: Sequence[str]) -> dict[str, str]:
        """Down, not responding or failing. A node that only drains still belongs to this job."""
        return dict.fromkeys(client.lost_nodes(self.config.cluster, nodes), "SLURM calls it down")

    def cancelled(self) -> bool:
        """By what slurmstepd wrote into this script's output: all else, signal and state, looks like a preemption. Other causes say `DUE TO`."""
        with suppress(OSError), open("/proc/self/fd/2", "rb") as log:
            log.seek(self._spoken)  # an earlier job may have written into it
            return re.search(rf"\*\*\* JOB {self.job} ON \S+ CANCELLED AT \S+ \*\*\*".encode(), log.read()) is not None
        return False

    def taken_back(self) -> bool:
        """Whether SLURM has put this job into the queue again while its script began: the prolog of another node failed. Steps are refused then.

        No answer is none: a controller that is away for a moment must not end a job that runs.
        """
        with suppress(CptError):
            return client.final_state(self.config.cluster, self.job) == "PENDING"
        return False

    def requeue(self, run: RunPaths, exclude: Sequence[str]) -> str:
        """The same job again; SLURM keeps a running job from naming nodes to avoid, so with such nodes it is a new job of the same script."""
        in_array = "SLURM_ARRAY_JOB_ID" in os.environ
        if self.config.slurm.requeue and (in_array or not exclude):
            client.requeue(self.config.cluster, self._requeue_id())
            return ""
        return client.submit(self.config.cluster, run.script, [*self.config.slurm.exclude, *exclude])

    def _requeue_id(self) -> str:
        """A task of an array by both its numbers: its own job id would requeue the whole array."""
        array = os.environ.get("SLURM_ARRAY_JOB_ID")
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else self.job


@dataclass
class SrunStep:
    """A running srun. Killing srun itself would leave its ranks to time out, so the controller is told first."""

    config: RunConfig
    attempt: AttemptPaths
    job: str
    name: str
    child: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        """srun's own code, 143 for nearly everything."""
        return self.child.poll()

    def tell(self) -> None:
        """srun passes the signal on to every rank, once."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGUSR2)

    def stacks(self, blamed: Sequence[Beat]) -> None:
        """Through the controller: srun keeps this signal for itself. A stopped process hears nothing, hence py-spy, on its node."""
        client.signal_step(self.config.cluster, self.job, self.name, STACKS.name.removeprefix("SIG"))
        looks = [self._look(beat, tool) for beat in blamed[:_LOOKS] if (tool := py_spy())]
        deadline = time.monotonic() + _LOOKING
        for look in looks:
            with suppress(subprocess.TimeoutExpired):
                look.wait(max(0.0, deadline - time.monotonic()))
            look.kill()

    def _look(self, beat: Beat, tool: str) -> subprocess.Popen[bytes]:
        step = ["srun", "--overlap", "--nodes=1", "--ntasks=1", "--cpus-per-task=1", f"--nodelist={beat.host}", "--job-name=cpt-stacks"]
        with open(self.attempt.stack(beat.rank), "ab") as output:
            argv = [*step, tool, "dump", "--nonblocking", "--pid", str(beat.pid)]
            return subprocess.Popen(argv, env=_inherited(), stdout=output, stderr=output, start_new_session=True)

    def kill(self) -> None:
        """Ranks first, then srun; both the controller's command and srun would wait for a dead node."""
        Thread(target=client.signal_step, args=(self.config.cluster, self.job, self.name, "KILL"), daemon=True).start()
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(_PATIENCE)
        self.child.kill()
        self.child.wait()


_LOOKS = 4
"""Blamed ranks that are looked at from outside; more would say the same."""

_LOOKING = 10.0
"""Seconds for that."""

_PATIENCE = 2.0
"""Seconds that srun has to end by itself after its ranks were killed."""

_OF_THE_ALLOCATION = frozenset(
    {
        "SLURM_NNODES",
        "SLURM_NODELIST",
        "SLURM_NPROCS",
        "SLURM_NTASKS",
        "SLURM_NTASKS_PER_NODE",
        "SLURM_TASKS_PER_NODE",
        "SLURM_JOB_NUM_NODES",
        "SLURM_DISTRIBUTION",
    }
)


def _inherited() -> dict[str, str]:
    """Without what sbatch set for the whole allocation, which would fight with a step's own, smaller shape."""
    return {key: value for key, value in os.environ.items() if key not in _OF_THE_ALLOCATION}


def py_spy() -> str | None:
    """Beside this interpreter, or on the path."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.is_file() else shutil.which("py-spy")


def meeting(head: str, job: str, attempt: int, deadline: float | None) -> dict[str, str]:
    """A meeting point that no earlier attempt used, and when to stop."""
    fixed = {"MASTER_ADDR": head, "MASTER_PORT": str(master_port(job, attempt)), ATTEMPT: str(attempt), "PYTHONUNBUFFERED": "1"}
    return fixed | ({DEADLINE: f"{deadline:.0f}"} if deadline else {})
