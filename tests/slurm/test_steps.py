"""An allocation without SLURM: the code that starts, tells and ends steps, around an srun that only writes down what it was asked."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cpt.config.compose import compose_config
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_text
from cpt.core.errors import EXIT_RESUME, Problem, UserError
from cpt.core.heartbeat import Beat, Phase
from cpt.core.paths import RunPaths
from cpt.topology import Fabric
from cpt.topology.fabric import Kind
from slurm import client, preflight, steps, supervisor
from slurm.steps import Allocation, meeting

SRUN = f"""#!{sys.executable}
import json, os, signal, sys, time
from pathlib import Path
here = Path(__file__).parent
signal.signal(signal.SIGUSR2, lambda *_: (here / "told").touch())
line = {{"argv": sys.argv[1:], "env": dict(os.environ), "session": os.getsid(0) == os.getpid()}}
temp = here / f".{{os.getpid()}}"
temp.write_text(json.dumps(line))
temp.rename(here / f"asked.{{time.time_ns()}}")
while "end" not in os.listdir(here):
    time.sleep(0.02)
sys.exit(7)
"""


class Slurm:
    """What was asked of srun and of SLURM's other commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[tuple[Any, ...]] = []

    def steps(self, count: int = 1) -> list[dict[str, Any]]:
        """The lines that srun got, in order, as soon as there are so many."""
        deadline = time.monotonic() + 30
        while len(found := sorted(self.folder.glob("asked.*"))) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} steps"
            time.sleep(0.01)
        return [json.loads(path.read_text()) for path in found]

    def record(self, name: str, answer: Any) -> Callable[..., Any]:
        def command(_: object, *arguments: Any) -> Any:
            self.said.append((name, *arguments))
            return answer

        return command


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """Inside of a job of three nodes."""
    fake = Slurm(tmp_path / "bin")
    write_text(fake.folder / "srun", SRUN)
    (fake.folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.folder), prepend=os.pathsep)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-3]", "SLURMD_NODENAME": "node1", "SLURM_NNODES": "3", "SLURM_NTASKS": "6", "SITE": "kept"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    answers = {
        "host_names": ["node1", "node2", "node3"],
        "end_time": 5000.0,
        "daemons": {},
        "fabric": Fabric(),
        "lost_nodes": ["node2"],
        "final_state": "RUNNING",
        "requeue": None,
        "submit": "8",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(client, name, fake.record(name, answer))
    monkeypatch.setattr(client, "signal_step", fake.record("signal_step", None))
    yield fake
    (fake.folder / "end").touch()


def allocation(*overrides: str) -> Allocation:
    config = compose_config(["train.train_tokens=81920", "slurm.nodes=2", "slurm.spare_nodes=1", "slurm.signal_lead=60", *overrides])
    return Allocation(config, ["srun", "--overlap", f"--nodes={config.slurm.nodes}", "python3", "-m", "train"])


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    found = RunPaths(tmp_path / "100% run")
    found.root.mkdir()
    return found


def test_what_the_job_is_comes_from_slurm(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    place = allocation()
    assert (place.job, place.restarts, place.host, place.has_queue) == ("7", 0, "node1", True)
    assert (place.nodes, place.deadline) == (["node1", "node2", "node3"], 4940.0)
    assert place.unfit(place.nodes) == {"node2": "SLURM calls it down"}
    assert place.answering(["node1", "node2"]) == {"node1", "node2"}, "of whom SLURM gives no address nothing bad can be said"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setattr(client, "end_time", lambda *_: None)
    assert (allocation().restarts, allocation().deadline) == (2, None)


def test_a_job_that_slurm_took_back_starts_nothing(slurm: Slurm, run: RunPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The prolog of another node failed while the script began: attempts would only burn the budget for launch failures."""
    assert not allocation().taken_back()
    monkeypatch.setattr(client, "final_state", lambda *_: "PENDING")
    write_text(run.config, to_yaml(compose_config(["train.train_tokens=81920"])))
    assert supervisor.main(["--run", str(run.root), "srun", "python3"]) == EXIT_RESUME
    assert "took this job back" in capsys.readouterr().err
    assert list(run.attempts()) == []


def test_a_controller_that_does_not_answer_has_taken_nothing_back(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> str:
        raise client.SlurmFailed("Unable to contact slurm controller")

    monkeypatch.setattr(client, "final_state", away)
    assert not allocation().taken_back()


def test_nodes_and_logs_are_put_behind_srun(slurm: Slurm, run: RunPaths) -> None:
    step = allocation().start(run, 4, ["node1", "node3"])
    (asked,) = slurm.steps()
    log = str(run.attempt(4).root).replace("%", "%%")
    assert asked["argv"] == ["--job-name=cpt-004", "--nodelist=node1,node3", f"--output={log}/rank_%t.log", "--overlap", "--nodes=2", "python3", "-m", "train"]
    own = asked["env"]
    assert (own["MASTER_ADDR"], own["CPT_ATTEMPT"], own["CPT_DEADLINE"], own["SLURM_JOB_ID"], own["SITE"]) == ("node1", "4", "4940", "7", "kept")
    assert "SLURM_HOSTFILE" not in own and not run.attempt(4).hostfile.exists()
    assert "SLURM_NNODES" not in own and "SLURM_NTASKS" not in own, "a step has a shape of its own"
    assert asked["session"], "a signal to the batch script's group must not reach srun twice"
    assert step.poll() is None
    (slurm.folder / "end").touch()
    assert step.child.wait(30) == 7 and step.poll() == 7


def test_an_order_that_is_not_slurms_is_a_line_per_rank(slurm: Slurm, run: RunPaths) -> None:
    """srun takes no `--nodelist` beside it, and from 24.05 on no `--nodes`; either would end every attempt at once."""
    allocation("slurm.tasks_per_node=2").start(run, 4, ["node3", "node1"])
    (asked,) = slurm.steps()
    assert asked["argv"][1:2] == ["--distribution=arbitrary"] and asked["argv"][3:] == ["--overlap", "python3", "-m", "train"]
    assert not any(word.startswith(("--nodes=", "--nodelist=")) for word in asked["argv"])
    assert asked["env"]["SLURM_HOSTFILE"] == str(run.attempt(4).hostfile)
    assert run.attempt(4).hostfile.read_text().split() == ["node3", "node3", "node1", "node1"]
    assert asked["env"]["MASTER_ADDR"] == "node3", "where rank 0 is"


def test_switches_are_asked_for_once_and_may_make_no_sense(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Fabric(kind=Kind.tree, paths={"node1": ("spine", "leaf1")})
    monkeypatch.setattr(client, "fabric", lambda _: tree)
    assert allocation().fabric == tree
    assert allocation("slurm.topology=false").fabric == Fabric()

    def circle(_: object) -> Fabric:
        raise UserError(Problem(where="SwitchName=a", what="lies below itself", why="", fix=""))

    monkeypatch.setattr(client, "fabric", circle)
    assert allocation().fabric == Fabric()


def test_a_step_is_told_through_srun_and_ended_through_the_controller(slurm: Slurm, run: RunPaths) -> None:
    step = allocation().start(run, 0, ["node1"])
    slurm.steps()
    step.tell()
    deadline = time.monotonic() + 30
    while not (slurm.folder / "told").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    step.stacks([])
    (slurm.folder / "end").touch()
    step.kill()
    assert ("signal_step", "7", "cpt-000", "QUIT") in slurm.said and ("signal_step", "7", "cpt-000", "KILL") in slurm.said
    assert step.poll() == 7
    step.tell()  # of whom is gone nobody is asked


def test_who_is_blamed_is_looked_at_from_outside_on_its_node(slurm: Slurm, run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "py_spy", lambda: "/opt/py-spy")
    write_text(run.attempt(0).begin, "")
    step = allocation().start(run, 0, ["node1"])
    (slurm.folder / "end").touch()
    step.stacks([Beat(rank=17, host="node2", pid=4711, phase=Phase.step, step=3, since=0.0, time=0.0)])
    argv = next(asked["argv"] for asked in slurm.steps(2) if "/opt/py-spy" in asked["argv"])
    assert "--nodelist=node2" in argv and argv[-5:] == ["/opt/py-spy", "dump", "--nonblocking", "--pid", "4711"]
    assert run.attempt(0).stack(17).is_file()


def test_an_srun_that_waits_for_a_dead_node_is_killed(slurm: Slurm, run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_PATIENCE", 0.05)
    step = allocation().start(run, 0, ["node1"])
    slurm.steps()
    step.kill()
    assert step.poll() == -signal.SIGKILL


def test_no_attempt_meets_where_another_did() -> None:
    first, second, other = meeting("node1", "7", 0, None), meeting("node1", "7", 1, None), meeting("node1", "8", 0, 99.6)
    assert len({each["MASTER_PORT"] for each in (first, second, other)}) == 3
    assert "CPT_DEADLINE" not in first and other["CPT_DEADLINE"] == "100"


def test_one_deputy_on_another_node(slurm: Slurm, run: RunPaths) -> None:
    place = allocation()
    place.guard(run, ["node1"])
    assert list(slurm.folder.glob("asked.*")) == [], "nobody to ask"
    place.guard(run, ["node1", "node2", "node3"])
    place.guard(run, ["node1", "node2", "node3"])
    assert "--nodelist=node3" in slurm.steps()[0]["argv"]
    place.guard(run, ["node1", "node2"])  # its node was lost
    first, second = slurm.steps(2)
    assert "--nodelist=node2" in second["argv"]
    assert first["argv"][-9:] == [sys.executable, "-m", "slurm.deputy", "--run", str(run.root), "--job", "7", "--host", "node1"]


def test_a_dead_node_is_not_asked_how_it_is(slurm: Slurm, run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []

    def examine(run: object, config: object, argv: object, attempt: object, nodes: Sequence[str], start: object) -> dict[str, str]:
        asked.append(nodes)
        return {"node1": "clock is 93 s ahead"}

    monkeypatch.setattr(preflight, "examine", examine)
    monkeypatch.setattr(Allocation, "answering", lambda self, nodes: {"node1", "node3"})
    unfit = allocation().examine(run, 0)
    assert asked == [["node1", "node3"]]
    assert unfit == {"node1": "clock is 93 s ahead", "node2": "SLURM's daemon there does not answer"}


RETURNS = [
    ([], [], {}, [("requeue", "7")], ""),
    ([], ["node2"], {}, [("submit", "script", ["node9", "node2"])], "8"),
    (["slurm.requeue=false"], [], {}, [("submit", "script", ["node9"])], "8"),
    ([], ["node2"], {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}, [("requeue", "5_3")], ""),
]


@pytest.mark.parametrize(
    ("overrides", "exclude", "array", "said", "successor"), RETURNS, ids=["the same job", "without a node", "a chain", "a task of an array"]
)
def test_the_way_back(
    slurm: Slurm,
    run: RunPaths,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    exclude: list[str],
    array: dict[str, str],
    said: list[tuple[Any, ...]],
    successor: str,
) -> None:
    for name, value in array.items():
        monkeypatch.setenv(name, value)
    place = allocation("slurm.exclude=[node9]", *overrides)
    slurm.said.clear()
    assert place.requeue(run, exclude) == successor
    assert slurm.said == [tuple(run.script if word == "script" else word for word in line) for line in said]


CANCELLED = "slurmstepd: error: *** JOB 7 ON node1 CANCELLED AT 2026-11-23T20:00:00 ***\n"
WORDS = [
    (CANCELLED, True),
    (CANCELLED.replace(" ***\n", " DUE TO PREEMPTION ***\n"), False),
    (CANCELLED.replace(" ***\n", " DUE TO TIME LIMIT ***\n"), False),
    (CANCELLED.replace("JOB 7", "JOB 71"), False),
    ("", False),
]


@pytest.mark.parametrize(("words", "cancelled"), WORDS)
def test_scancel_is_known_by_what_slurm_writes(slurm: Slurm, tmp_path: Path, words: str, cancelled: bool) -> None:
    """Into the script's own output, where an earlier life of the job may have been cancelled too."""
    log = tmp_path / "job.log"
    log.write_text(CANCELLED)
    before = os.dup(2)
    try:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 2)
        place = allocation()
        assert not place.cancelled()
        os.write(2, words.encode())
        found = place.cancelled()
    finally:
        os.dup2(before, 2)
        os.close(before)
    assert found is cancelled
