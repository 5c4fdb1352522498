"""The same faults with the real engine: whatever hits a run, its losses and its data are bit for bit those of a run that nothing happened to."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cpt.checkpoint import CheckpointStore
from cpt.config.seal import read_config
from cpt.core.artifacts import write_text
from cpt.core.attempts import Action, Ending
from cpt.core.paths import RunPaths
from cpt.tracking.journal import read_events, series
from slurm import client
from slurm.devcluster import DevCluster, can_run
from slurm.script import Origin, render
from tests.slurm.conftest import Submitted
from tests.slurm.drill_table import COLUMNS, write_table
from tests.slurm.faults import RELAUNCH, SPARE, Fault, Outcome, lose_power, measure, play, power_back, restart_controller, send, want_its_nodes
from tests.tiny import make_run

pytestmark = [pytest.mark.slurm, pytest.mark.engine, pytest.mark.slow]

FAST = [*SPARE, "checkpoint.interval=12", "checkpoint.fast_interval=2"]
TABLE = os.environ.get("DRILL_TABLE")
STEPS, INTERVAL = 24, 4
CURVES = ("train/loss", "data/batch_crc32")

TRAINING = [
    "cluster=devcluster",
    "slurm.nodes=2",
    "slurm.time=10:00",
    "slurm.heartbeat_seconds=1",
    "slurm.silence_seconds=5",
    "slurm.hang_seconds=20",
    # Half a second a step on two cores: long enough to be struck in the middle of the run.
    "train.sequence_length=512",
    "train.global_batch_size=16",
    f"train.train_tokens={STEPS * 16 * 512}",
    f"checkpoint.interval={INTERVAL}",
]
"""Two nodes, one rank each: DP 2."""

POWER, KILLED, HANG, CONTROLLER, DISK, PREEMPTED = FAULTS = [
    Fault(
        name="power loss of a worker node, spare",
        expected=(Ending.node_lost, Action.relaunch),
        says=RELAUNCH,
        settings=SPARE,
        strike=lose_power(1),
        heal=power_back(1),
    ),
    Fault(name="rank SIGKILL", expected=(Ending.rank_crash, Action.relaunch), says="relaunch on the same nodes", strike=send(1, signal.SIGKILL)),
    Fault(
        name="rank SIGSTOP (hang)",
        expected=(Ending.hang, Action.relaunch),
        says="named after slurm.hang_seconds (here 20 s), stacks dumped, relaunch",
        strike=send(1, signal.SIGSTOP),
    ),
    Fault(name="slurmctld restarted", expected=None, says="nothing happens to the run", strike=restart_controller),
    Fault(
        name="disk really full during a save",
        expected=(Ending.fatal, Action.fail),
        says="FAILED at once, with what to free; submitted again it goes on from the last complete checkpoint",
        final="FAILED",
    ),
    Fault(name="preemption by a higher partition", expected=(Ending.preempted, Action.requeue), says="ranks save together, requeue", strike=want_its_nodes),
]


@dataclass
class Trained(Submitted):
    """A run of the real engine."""

    def rows(self, attempt: int) -> list[dict[str, Any]]:
        """Steps alone; the engine journals evaluations, too."""
        return [row for row in super().rows(attempt) if "train/loss" in row["values"]]


@pytest.fixture(scope="module")
def disk(root: Path) -> Iterator[Path]:
    """A file system of its own under the checkpoints of one run. It is there before the nodes are, which see only what was mounted before them."""
    possible, why = can_run()
    if not possible:
        pytest.skip(why)
    folder = RunPaths(root / DISK.folder).checkpoints
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "cpt-drill", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def cluster(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    cluster = DevCluster(tmp_path_factory.mktemp("cluster"))
    cluster.start(4)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def start(root: Path, cluster: DevCluster) -> Callable[..., Trained]:
    def submit(name: str, overrides: list[str]) -> Trained:
        run = make_run(root, name, [*TRAINING, f"cluster.slurm_conf={cluster.files.slurm_conf}", *overrides])
        config = read_config(run.config)
        write_text(run.script, render(config, run, Origin()))
        return Trained(config, run, client.submit(config.cluster, run.script))

    return submit


@pytest.fixture(scope="module")
def straight(start: Callable[..., Trained]) -> RunPaths:
    """A run that nobody disturbed."""
    job = start("straight", [])
    assert job.ended() == "COMPLETED", job.log()
    assert len(job.begins()) == 1 and list(series(job.run, "train/loss")) == list(range(1, STEPS + 1))
    return job.run


@pytest.fixture(scope="module")
def outcomes(start: Callable[..., Trained], cluster: DevCluster, straight: RunPaths, disk: Path) -> Iterator[dict[str, Outcome]]:
    """Each fault when its test asks for it, one after the other."""
    found: dict[str, Outcome] = {}
    yield found
    if TABLE:
        equal = {"losses equal": lambda outcome: "bit for bit" if curves(outcome.job.run) == curves(straight) else "NO"}
        write_table(Path(TABLE), "engine", list(found.values()), {**COLUMNS, **equal})


def curves(run: RunPaths) -> list[dict[int, float]]:
    return [series(run, name) for name in CURVES]


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def assert_recovered(outcome: Outcome, straight: RunPaths) -> None:
    """As expected, at most one interval lost, and no number differs from the undisturbed run's. A save that fails has been trained beside until the next one waits for it."""
    job, log = outcome.job, outcome.job.log()
    ends = [(end.ending, end.action) for end in job.ends()]
    assert ends == [*([outcome.fault.expected] if outcome.fault.expected else []), (Ending.done, Action.done)], log
    most = 2 * INTERVAL if outcome.fault == DISK else INTERVAL
    assert outcome.steps_lost is None or 0 <= outcome.steps_lost <= most
    for name in CURVES:
        assert series(job.run, name) == series(straight, name), name


@pytest.fixture
def played(start: Callable[..., Trained], cluster: DevCluster, straight: RunPaths, outcomes: dict[str, Outcome]) -> Callable[[Fault], Outcome]:
    def one(fault: Fault) -> Outcome:
        outcomes[fault.name] = outcome = play(fault, start, cluster, INTERVAL)
        assert outcome.state == fault.final, outcome.job.log()
        return outcome

    return one


def test_exact_after_power_loss_of_a_worker(played: Callable[[Fault], Outcome], straight: RunPaths) -> None:
    outcome = played(POWER)
    assert_recovered(outcome, straight)
    first, second = outcome.job.begins()
    assert first.nodes[1] not in second.nodes and (second.path, second.restarts) == ("relaunch", 0)


def test_exact_after_power_loss_with_a_fast_tier(played: Callable[[Fault], Outcome], straight: RunPaths, tmp_path: Path) -> None:
    """The spare gets the files of the lost node from the one that held its copies; no full checkpoint was there yet."""
    settings = [*FAST, f"checkpoint.fast_folder={tmp_path}"]
    outcome = played(replace(POWER, name="power loss of a worker node, spare, fast tier", settings=settings))
    assert_recovered(outcome, straight)
    first, second = outcome.job.begins()
    [resume] = [event.fields for event in read_events(outcome.job.run) if event.name == "resume"]
    assert resume["tier"] == "fast" and 2 <= resume["step"] == second.step
    assert set(resume["fetched"].values()) == {first.nodes[0]}
    assert {path.parent.name for path in tmp_path.glob("*/*/step_*")} == {first.nodes[1]}, "the nodes that finished have removed theirs"


def test_exact_after_a_killed_rank(played: Callable[[Fault], Outcome], straight: RunPaths) -> None:
    outcome = played(KILLED)
    assert_recovered(outcome, straight)
    assert outcome.job.begins()[0].nodes == outcome.job.begins()[1].nodes


def test_exact_after_a_hang_which_is_named(played: Callable[[Fault], Outcome], straight: RunPaths) -> None:
    outcome = played(HANG)
    assert_recovered(outcome, straight)
    end = outcome.job.ends()[0]
    assert (end.rank, end.nodes) == (1, [outcome.job.begins()[0].nodes[1]])
    assert "silent: rank 1 on" in end.message
    stacks = outcome.job.run.attempt(0).log(0).read_text()
    assert "most recent call first" in stacks and "loop.py" in stacks, "wherever in the loop it waits for its peer"


def test_exact_while_the_controller_is_restarted(played: Callable[[Fault], Outcome], straight: RunPaths) -> None:
    assert_recovered(played(CONTROLLER), straight)


def test_exact_after_a_full_disk(played: Callable[[Fault], Outcome], straight: RunPaths, outcomes: dict[str, Outcome], disk: Path) -> None:
    """Room for one checkpoint and a half; then, as a person would, for all of them."""
    store = CheckpointStore(straight.checkpoints)
    size = store.record(STEPS).bytes
    resize(disk, size * 3 // 2)
    outcome = played(DISK)
    job = outcome.job
    assert [(end.ending, end.action) for end in job.ends()] == [DISK.expected], job.log()
    assert f"disk of {job.run.root} is full" in job.ends()[0].message
    assert CheckpointStore(disk).steps() == [INTERVAL] and not job.run.torn_checkpoints()
    resize(disk, size * 4)
    again, submitted = replace(job, job=client.submit(job.config.cluster, job.run.script)), time.time()
    assert again.ended() == "COMPLETED", again.log()
    outcomes[DISK.name] = outcome = measure(replace(outcome, job=again, state="COMPLETED"), submitted)
    assert_recovered(outcome, straight)
    assert again.begins()[1].step == INTERVAL


def test_exact_after_a_preemption(played: Callable[[Fault], Outcome], straight: RunPaths) -> None:
    outcome = played(PREEMPTED)
    assert_recovered(outcome, straight)
    assert outcome.steps_lost == 0 and outcome.job.begins()[1].restarts == 1
