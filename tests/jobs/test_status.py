"""`cpt status`: what is true of a run, in one page, and as an exit code for cron."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpt.core.artifacts import write_json
from cpt.core.attempts import Action, Ending
from cpt.core.errors import CptError, UserError
from cpt.core.heartbeat import Phase
from cpt.core.records import SweepRecord
from jobs import status, status_answer
from slurm import client
from slurm.arrays import Submission
from slurm.client import Job, PastJob
from slurm.standing import State, of_run
from slurm.submit import JobRecord
from tests.jobs.history import History


class Cluster:
    """What squeue and sacct say."""

    def __init__(self) -> None:
        self.queue: list[Job] = []
        self.accounts: list[PastJob] = []
        self.silent = False
        self.asked = 0

    def jobs(self, cluster: object, *, job_id: str = "", name: str = "") -> list[Job]:
        self.asked += 1
        if self.silent:
            raise CptError("squeue: no answer in 60 s")
        return [job for job in self.queue if ("_" in job.id) == name.startswith("lr.")]

    def says(self, state: str, reason: str = "None", nodes: str = "") -> None:
        self.queue = [Job(id="4711", state=state, reason=reason, nodes=nodes)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    fake = Cluster()
    monkeypatch.setattr(client, "jobs", fake.jobs)
    monkeypatch.setattr(client, "sacct_history", lambda cluster, job: fake.accounts)
    return fake


Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Ask:
    def call(*arguments: object) -> tuple[int, str]:
        code = status.main([str(argument) for argument in arguments])
        return code, capsys.readouterr().out

    return call


def eventful(root: Path) -> History:
    """A crash relaunched on the spare, a lost node requeued, and a third attempt that runs."""
    story = History(root, ago=3000)
    story.begin(120)
    story.train(123)
    story.end(Ending.rank_crash, Action.relaunch, "rank 17 on node3: CUDA error", nodes=["node3"], rank=17)
    story.begin(2, path="relaunch", nodes=["node1", "node2", "node4", "node5"], spares=[], start=9)
    story.train(250)
    story.end(Ending.node_lost, Action.requeue, "lost node2", nodes=["node2"])
    story.begin(116, path="requeue")
    story.train(200)
    story.beats()
    return story


def test_a_healthy_run_is_one_page_and_code_0(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    story = eventful(tmp_path)
    cluster.says("RUNNING", nodes="node[1-4]")
    code, said = ask(story.run.root)
    assert code == 0
    for fact in (
        "running  attempt 2",
        "job 4711 RUNNING on node[1-4]",
        "step 570 of 1,000 (57.0%)",
        "loss 2.4300",
        "512 tokens/s",
        "4.2s a step",
        "32: 32 step after step 570",
        "4: node[1-4], spare node5",
        "silence; no progress is a hang after 30m 0s (start, step, evaluate, save)",
    ):
        assert fact in said
    assert "checkpoint  step 570" in said and "time left" in said


def test_what_is_at_risk_is_said_for_both_tiers(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    story = eventful(tmp_path)
    story.train(7, save_every=100)
    write_json(story.run.fast, {"step": 574})
    cluster.says("RUNNING", nodes="node[1-4]")
    _, said = ask(story.run.root)
    assert "step 570, " in said and ", 7 steps since" in said
    assert "fast checkpoint  step 574 on the nodes' own disks, 3 steps since" in said
    assert json.loads(ask(story.run.root, "--json")[1])["checkpoint"]["fast_step"] == 574


def test_updates_that_stood_out_are_told_once_with_their_samples(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    """Also one that came again after a kill."""
    story = eventful(tmp_path)
    cluster.says("RUNNING", nodes="node[1-4]")
    worst = [{"sample": 4563, "loss": "nan", "source": "listings", "documents": [17]}]
    with story._journal() as journal:
        for step, kind, action in ((560, "loss_spike", "note"), (571, "non_finite", "skip"), (571, "non_finite", "skip")):
            journal.event("anomaly", kind=kind, action=action, why="loss nan", step=step, samples=[step * 8 - 8, step * 8], worst=worst)
    _, said = ask(story.run.root)
    assert "1 loss_spike (note), 1 non_finite (skip); last at update 571: loss nan; samples 4560 to 4567, highest loss 4563 of listings" in " ".join(
        said.split()
    )
    _, values = ask(story.run.root, "--json")
    assert [one["step"] for one in json.loads(values)["anomalies"]] == [560, 571]


def test_every_recovery_shows_its_path_and_its_seconds(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    story = eventful(tmp_path)
    cluster.says("RUNNING")
    rows = {line.split()[0]: line.split() for line in ask(story.run.root)[1].splitlines() if line.strip()[:1].isdigit()}
    assert rows["1"][1:3] == ["relaunch", "20s"]  # 5 until it ended, 2 to the next, 9 to start, a step of 4
    assert rows["2"][1:4] == ["requeue", "2m", "27s"]  # the save after step 370 too
    assert "node[1-2,4-5]" in rows["1"] and "node_lost" in rows["1"] and "3" in rows["1"]


def test_as_json_the_kinds_add_up_to_the_wall_time(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    story = eventful(tmp_path)
    cluster.says("RUNNING")
    code, said = ask(story.run.root, "--json")
    found = json.loads(said)
    assert (code, found["exit_code"], found["state"], found["attempt"], found["steps"]) == (0, 0, "running", 2, 1000)
    assert sum(kind["seconds"] for kind in found["goodput"].values()) == pytest.approx(found["wall_seconds"], abs=1e-6)
    assert found["wall_seconds"] == pytest.approx(3000, abs=30)
    assert found["goodput"]["useful"]["seconds"] == 570 * 4 and found["goodput"]["recomputed"]["seconds"] == 3 * 4
    assert found["goodput"]["queued"]["seconds"] == pytest.approx(120 + 116, abs=1)
    assert [recovery["path"] for recovery in found["recoveries"]] == ["relaunch", "requeue"]
    assert found["cost"]["node_hours"] == pytest.approx(
        (5 * (20 + 123 * 4 + 24 + 7) + 4 * (9 + 250 * 4 + 50 + 5) + 5 * (found["time"] - story_begin(found))) / 3600
    )
    assert found["cost"]["gpu_hours"] == pytest.approx(8 * found["cost"]["node_hours"])
    assert found["ranks"]["phases"] == {"step": 32} and found["progress"]["step"] == 570


def story_begin(found: dict[str, Any]) -> float:
    return float(found["attempts"][-1]["begin"]["time"])


def test_cost_in_money_and_in_slurms_own_accounts(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    story = History(tmp_path, ago=3700, overrides=["cluster.gpu_hour_price=2.5"])
    story.begin(100, start=3590)
    story.end(Ending.done, Action.done, "done", after=10)
    cluster.accounts = [PastJob(id="4711", state="CANCELLED by 0", submitted=0, started=0, ended=0, seconds=3600, nodes=5)]
    said = ask(story.run.root)[1]
    assert "40.00 GPU-hours so far, 100.00 at 2.5 each" in said and "accounts say 5.00 node-hours" in said
    assert "4711, no longer in the queue; its accounts say CANCELLED by 0" in said


@pytest.mark.parametrize(
    ("what", "concern"),
    [
        (lambda story: story.suspect({"node2": "blamed twice"}, {}), "node2 is kept out: blamed twice"),
        (lambda story: story.beats(ages=[90.0, 80.0]), "2 of 32 ranks are silent, rank 0 on node1 for 90 s"),
        (lambda story: write_json(story.run.state, {"streak": {"node_lost": 2}}), "2 attempt(s) in a row without a newer checkpoint"),
    ],
)
def test_what_is_not_quite_well_is_code_1(tmp_path: Path, cluster: Cluster, ask: Ask, what: Callable[[History], None], concern: str) -> None:
    story = eventful(tmp_path)
    what(story)
    cluster.says("RUNNING")
    code, said = ask(story.run.root)
    assert code == 1 and f"! {concern}" in said and "running (degraded)" in said


def test_a_run_without_a_spare_and_one_that_computes_much_twice_are_degraded(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    story = History(tmp_path, ago=1000)
    story.begin(1)
    story.train(99, save_every=1000)
    story.end(Ending.node_lost, Action.requeue, "lost node2")
    story.begin(10, path="requeue", spares=[])
    story.train(100, save_every=1000)
    cluster.says("RUNNING")
    code, said = ask(story.run.root)
    assert code == 1 and "no spare node is left" in said and "% of the time went into steps that were lost" in said


def test_a_finished_run_is_fine_and_its_clock_stands(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    story = History(tmp_path, ago=100_000)
    story.begin(60)
    story.train(1000)
    story.finish()
    code, said = ask(story.run.root, "--json")
    assert code == 0 and json.loads(said)["wall_seconds"] == pytest.approx(60 + 20 + 4200 + 5, abs=1)
    assert "done  finished at step 1000" in ask(story.run.root)[1]


ENDS = [
    (Ending.no_progress, Action.hold, State.held, 2),
    (Ending.fatal, Action.fail, State.failed, 2),
    (Ending.stopped, Action.done, State.stopped, 0),
    (Ending.node_lost, Action.requeue, State.gone, 2),
]


@pytest.mark.parametrize(("ending", "action", "state", "code"), ENDS)
def test_a_run_that_has_left_the_queue(tmp_path: Path, cluster: Cluster, ask: Ask, ending: Ending, action: Action, state: State, code: int) -> None:
    story = History(tmp_path, ago=1000)
    story.begin(1)
    story.train(20)
    story.end(ending, action, "what happened")
    found, said = ask(story.run.root)
    assert (of_run(story.run).state, found) == (state, code)
    assert "what happened" in said and ("cpt why" in said) == (code == 2)


QUEUES = [
    ("PENDING", "Resources", 0, State.queued, 0),
    ("PENDING", "BeginTime", 1, State.queued, 1),
    ("COMPLETING", "None", 1, State.queued, 1),
    ("PENDING", "JobHeldUser", 1, State.held, 2),
    ("SPECIAL_EXIT", "JobHeldUser", 1, State.held, 2),
    ("RUNNING", "None", 0, State.running, 0),
    ("CONFIGURING", "None", 0, State.running, 0),
    ("", "", 0, State.gone, 2),
]


@pytest.mark.parametrize(("job", "reason", "attempts", "state", "code"), QUEUES)
def test_what_the_queue_says(tmp_path: Path, cluster: Cluster, ask: Ask, job: str, reason: str, attempts: int, state: State, code: int) -> None:
    story = History(tmp_path, ago=1000)
    if attempts:
        story.begin(1)
        story.end(Ending.node_lost, Action.requeue, "lost node2")
    if job:
        cluster.says(job, reason)
    assert ask(story.run.root)[0] == code
    assert of_run(story.run).state is state


def test_an_attempt_that_never_said_how_it_ended(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    story = History(tmp_path, ago=90_000)
    story.begin(1)
    story.train(20)
    story.beats(late=80_000)
    code, said = ask(story.run.root, "--json")
    assert code == 2 and "attempt 0 never said how it ended" in json.loads(said)["why"]
    assert json.loads(said)["wall_seconds"] == pytest.approx(10_000, abs=5)  # not a day: until its last heartbeat


def test_a_silent_scheduler_is_asked_once_and_files_still_answer(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    cluster.silent = True
    beating, quiet = eventful(tmp_path), History(tmp_path, ago=100, name="quiet-aaaaaaaaaa")
    assert of_run(beating.run).state is State.running
    assert of_run(quiet.run).state is State.unknown
    cluster.asked = 0
    code, said = ask(tmp_path)
    assert code == 1 and "the scheduler does not answer: squeue: no answer" in said
    assert cluster.asked == 2  # once for the list, once for the newest in full


def test_a_folder_lists_its_runs_and_shows_the_newest(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    old = History(tmp_path, ago=9000, name="old-aaaaaaaaaa")
    old.begin(1)
    old.train(30)
    old.end(Ending.fatal, Action.fail, "bad config")
    story = eventful(tmp_path)
    cluster.says("RUNNING")
    code, said = ask(tmp_path)
    lines = said.splitlines()
    assert code == 0
    assert lines[2].split()[:2] == ["tiny-0123456789", "running"] and lines[3].split()[:2] == ["old-aaaaaaaaaa", "running"]  # one name in this fake queue
    assert "the newest:" in said and "step 570 of 1,000 (57.0%)" in said
    found = json.loads(ask(tmp_path, "--json")[1])
    assert [run["step"] for run in found["runs"]] == [570, 30] and found["newest"]["run"] == str(story.run.root)


def test_a_name_is_found_below_runs(tmp_path: Path, cluster: Cluster, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="nothing was launched"):
        status.main([])
    story = eventful(tmp_path / "runs")
    cluster.says("RUNNING")
    assert story.run.root.name in ask()[1]
    assert "running  attempt 2" in ask("tiny-0123456789")[1]
    with pytest.raises(UserError, match="elsewhere: is no run, sweep or folder of runs"):
        status.main(["elsewhere"])


def sweep(root: Path) -> list[History]:
    folder = root / "sweeps" / "lr"
    trials = [["optimizer.lr_ratio=0.1", "seed=1"], ["optimizer.lr_ratio=0.3", "seed=1"]]
    SweepRecord(name="lr", job="17", command=[], trials=trials).save(folder / "sweep.json")
    Submission(name="lr.abcdef.000", trials=[0, 1], fingerprints=["f0", "f1"], job="17").save(folder / "submitit" / "000" / "submission.json")
    stories = [History(folder / "trials", ago=500, name=f"{index:03d}") for index in range(2)]
    for index, story in enumerate(stories):
        JobRecord(id=f"17_{index}", scheduler="slurm", time=story.now).save(story.run.job)
        write_json(story.run.run, {"fingerprint": f"f{index}"})
    return stories


def test_a_sweep_is_a_table(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    first, second = sweep(tmp_path)
    first.begin(1)
    first.train(1000)
    first.finish()
    second.begin(1)
    second.train(40)
    cluster.queue = [Job(id="17_1", state="RUNNING", reason="None", nodes="node3")]
    code, said = ask(tmp_path / "sweeps" / "lr")
    rows = [line.split() for line in said.splitlines()]
    assert code == 0 and "sweep lr: 1 done, 1 RUNNING" in said
    assert rows[2] == ["000", "f0", "done", "1000", "2.0000", "17_0", "optimizer.lr_ratio=0.1"]
    assert rows[3] == ["001", "f1", "RUNNING", "40", "2.9600", "17_1", "optimizer.lr_ratio=0.3"]
    assert "running  attempt 0" in ask(second.run.root)[1]  # a trial alone
    assert "sweep lr: 1 done, 1 RUNNING" in ask(tmp_path)[1]
    cluster.queue = []
    assert ask(tmp_path / "sweeps" / "lr")[0] == 1
    second.end(Ending.fatal, Action.fail, "")
    assert [row["state"] for row in json.loads(ask(tmp_path / "sweeps" / "lr", "--json")[1])["trials"]] == ["done", "failed"]


def test_a_trial_whose_submitter_died_is_found_in_the_queue(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    _, second = sweep(tmp_path)
    second.run.job.unlink()
    cluster.queue = [Job(id="17_1", state="PENDING", reason="Resources", nodes="")]
    known = of_run(second.run)
    assert (known.state, known.job) == (State.queued, "17_1")


def test_watch_prints_a_block_at_a_time_until_it_is_over(tmp_path: Path, cluster: Cluster, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    story = eventful(tmp_path)
    cluster.says("RUNNING")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            cluster.queue = []
            story.beats(phase=Phase.done)
            story.finish()

    monkeypatch.setattr(status_answer.time, "sleep", sleep)
    code, said = ask(story.run.root, "--watch", "3")
    assert code == 0 and waited == [3.0, 3.0]
    assert said.count("tiny-0123456789  ") == 3 and said.count("\n---- ") == 2


def test_layers_of_the_last_measured_update_and_those_that_stand_out(tmp_path: Path, cluster: Cluster, ask: Ask) -> None:
    story = eventful(tmp_path)
    with pytest.raises(UserError, match=r"fix: touch .*/triggers/stats, or train.stats_interval=<steps>"):
        ask(story.run.root, "--layers")
    for step, loud in ((90, 1), (500, 3)):
        norms = [("embedding", 9.0), *((f"layer_{layer:03d}.{kind}", 2.5 if layer == loud else 0.5) for layer in range(5) for kind in ("attention", "mlp"))]
        rows = [json.dumps({"part": part, "grad_norm": norm, "weight_norm": 1.0, "update_norm": 1e-4, "update_ratio": 1e-4}) for part, norm in norms]
        path = story.run.layer_stats(step)
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(rows) + "\n")
    code, said = ask(story.run.root, "--layers")
    assert code == 0 and "update 500" in said
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.strip()}
    assert lines["3"] == ["2.5", "!", "0.0001", "2.5", "!", "0.0001"]
    assert lines["1"] == ["0.5", "0.0001", "0.5", "0.0001"] and lines["embedding"] == ["9", "0.0001"]
