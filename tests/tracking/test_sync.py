"""Sync against a real sqlite store and a real server: every point arrives, exactly once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_json, write_text
from cpt.core.attempts import StopRecord
from cpt.core.errors import MissingInput, UserError
from cpt.core.paths import RunPaths, SweepPaths
from cpt.tracking.journal import Journal
from cpt.tracking.record import TrackingRecord
from cpt.tracking.store import connect, ensure_store, tracking_uri
from cpt.tracking.sync import follow, metric_name, sync
from jobs.sync import main

from .conftest import MakeRun, tiny_config, write_steps


def points(database: Path) -> list[tuple[str, int, float, int]]:
    """(key, step, value, timestamp) of everything in the store, straight from its table."""
    with sqlite3.connect(database) as connection:
        return sorted(connection.execute("SELECT key, step, value, timestamp FROM metrics").fetchall())


def test_all_points_arrive_with_original_timestamps_and_only_once(make_run: MakeRun, root: Path) -> None:
    run = make_run()
    write_steps(run, 0, range(1, 6))
    (first,) = sync([run.root])
    assert (first.rows, first.status, first.error) == (5, "RUNNING", "")
    before = points(root / "mlflow.db")
    assert len(before) == 5 * 3
    assert before[0] == ("train/consumed_tokens", 1, 2048.0, 1_700_000_001_000)
    (again,) = sync([run.root])
    assert again.rows == 0 and points(root / "mlflow.db") == before


def test_lost_cursor_repeats_without_doubling(make_run: MakeRun, root: Path) -> None:
    run = make_run()
    write_steps(run, 0, range(1, 6))
    sync([run.root])
    before, record = points(root / "mlflow.db"), TrackingRecord.load(run.tracking)
    TrackingRecord(uid=record.uid).save(run.tracking)  # as if killed right after the run was created
    sync([run.root])
    assert points(root / "mlflow.db") == before
    assert TrackingRecord.load(run.tracking).run_id == record.run_id


def test_one_run_id_through_requeues_and_superseded_rows_stay_out(make_run: MakeRun, root: Path) -> None:
    run = make_run()
    write_steps(run, 0, range(1, 9))
    write_steps(run, 1, range(6, 11), resume_step=5)
    sync([run.root])
    run_id = TrackingRecord.load(run.tracking).run_id
    losses = [(step, stamp) for key, step, _, stamp in points(root / "mlflow.db") if key == "train/loss"]
    assert [step for step, _ in losses] == list(range(1, 11))
    assert losses[5] == (6, 1_700_001_001_000)  # of the second attempt
    StopRecord(reason="done", step=10, attempt=1).save(run.stopped)
    (last,) = sync([run.root])
    assert last.status == "FINISHED" and TrackingRecord.load(run.tracking).run_id == run_id
    info = connect(f"sqlite:///{root / 'mlflow.db'}").get_run(run_id)
    assert info.info.status == "FINISHED" and info.data.tags["cpt.attempt"] == "1"
    assert info.data.params["optimizer.lr_ratio"] == "0.1"
    assert Path(info.info.artifact_uri.removeprefix("file://"), "config.yaml").read_text() == run.config.read_text()


def test_edited_config_does_not_break_a_requeued_run(make_run: MakeRun, root: Path) -> None:
    run = make_run()
    write_steps(run, 0, range(1, 3))
    sync([run.root])
    make_run(run.root.name, "optimizer.lr_ratio=0.2")
    record = TrackingRecord.load(run.tracking)
    TrackingRecord(uid=record.uid, run_id=record.run_id, offsets=record.offsets).save(run.tracking)
    (result,) = sync([run.root])
    assert result.error == ""


def test_non_finite_values_are_dropped_with_a_tag(make_run: MakeRun, root: Path) -> None:
    run = make_run()
    with Journal(run, 0) as journal:
        journal.metrics(1, 8, 2048, {"train/loss": float("nan"), "train/grad_norm": float("inf"), "acc,none": 0.5})
    sync([run.root])
    assert {key for key, *_ in points(root / "mlflow.db")} == {"acc_none", "train/consumed_tokens"}
    tags = connect(f"sqlite:///{root / 'mlflow.db'}").get_run(TrackingRecord.load(run.tracking).run_id).data.tags
    assert tags["cpt.dropped_non_finite"] == "train/grad_norm, train/loss"


def test_unfinished_line_waits_for_its_end(make_run: MakeRun, root: Path) -> None:
    run = make_run()
    write_steps(run, 0, range(1, 3))
    whole = run.metrics(0).read_bytes()
    run.metrics(0).write_bytes(whole[:-20])
    assert sync([run.root])[0].rows == 1
    run.metrics(0).write_bytes(whole)
    assert sync([run.root])[0].rows == 1


def test_more_values_than_one_call_takes(make_run: MakeRun, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    with Journal(run, 0) as journal:
        for step in (1, 2):
            journal.metrics(step, 0, 0, {f"x/{i}": float(i) for i in range(1500)})
    sent, log_batch = list[int](), MlflowClient.log_batch

    def counted(client: MlflowClient, run_id: str, metrics: Sequence[object] = (), **rest: object) -> object:
        sent.append(len(metrics))
        return log_batch(client, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    sync([run.root])
    assert len(points(root / "mlflow.db")) == 2 * 1501
    assert max(sent) == 1000, "the most that a server takes"


def test_sweep_is_a_parent_with_a_child_per_trial(make_run: MakeRun, root: Path) -> None:
    sweep = SweepPaths(root / "sweeps" / "lr")
    for index in (0, 1):
        run = make_run(f"sweeps/lr/trials/{index:03d}")
        write_steps(run, 0, range(1, 3))
        StopRecord(reason="done", step=2, attempt=0).save(run.stopped)
    assert [result.status for result in sync([root])] == ["FINISHED", "FINISHED"]
    client, parent = connect(f"sqlite:///{root / 'mlflow.db'}"), TrackingRecord.load(sweep.tracking)
    children = client.search_runs(["1"], filter_string=f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
    assert sorted(child.info.run_name for child in children) == ["lr/000", "lr/001"]
    assert client.get_run(parent.run_id).info.status == "FINISHED"


def test_given_up_attempt_is_failed_until_it_runs_again(make_run: MakeRun) -> None:
    run = make_run()
    write_steps(run, 0, range(1, 3))
    write_json(run.attempt(0).end, {"action": "hold", "ending": "no_progress"})
    assert sync([run.root])[0].status == "FAILED"
    run.attempt(1).root.mkdir(parents=True)
    assert sync([run.root])[0].status == "RUNNING"


def test_follow_ends_with_the_run(make_run: MakeRun, root: Path) -> None:
    run = make_run()
    write_steps(run, 0, range(1, 4))
    passes = follow([run.root], seconds=0)
    assert next(passes)[0].status == "RUNNING"
    StopRecord(reason="done", step=3, attempt=0).save(run.stopped)
    assert [results[0].status for results in passes] == ["FINISHED"]


def test_switched_off_means_nothing_is_written(make_run: MakeRun) -> None:
    run = make_run("tiny-off", "tracking=none")
    write_steps(run, 0, range(1, 3))
    assert sync([run.root]) == [] and not run.tracking.exists()


def test_dead_server_is_a_warning_and_exit_code_1(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("tiny-dead", f"tracking.uri=http://127.0.0.1:{free_port()}")
    write_steps(run, 0, range(1, 3))
    assert main([str(run.root)]) == 1
    assert "the journal is kept" in capsys.readouterr().out


def test_folder_that_is_no_run_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"config\.yaml"):
        sync([tmp_path])


def test_names_that_mlflow_refuses_are_changed() -> None:
    assert metric_name("heldout/loss/man de[x],none") == "heldout/loss/man de_x__none"


def test_store_is_made_once_and_an_existing_one_costs_no_import(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cpt.config.run import RunConfig; from cpt.tracking.store import ensure_store;"
        f"ensure_store(RunConfig(run_root={str(root)!r})); print('mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_what_submits_does_not_load_the_room_that_talks_to_mlflow() -> None:
    code = "import sys, jobs.launch, jobs.run_directory, jobs.train, slurm.hydra_launcher; print('cpt.tracking' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_without_sqlalchemy_the_user_is_told_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sqlalchemy" else find(name))
    with pytest.raises(UserError, match=r"needs sqlalchemy[\s\S]*\[tracking\]"):
        ensure_store(tiny_config(tmp_path))
    ensure_store(tiny_config(tmp_path, "tracking=none"))
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_syncs_that_start_at_once_on_a_new_root_end_with_one_store(tmp_path: Path) -> None:
    runs = [RunPaths(tmp_path / f"tiny-{number}") for number in range(3)]
    for run in runs:
        write_text(run.config, to_yaml(tiny_config(tmp_path)))
        write_steps(run, 0, range(1, 4))
    started = [subprocess.Popen([sys.executable, "-m", "jobs.cli", "sync", str(run.root)], stderr=subprocess.PIPE, text=True) for run in runs]
    assert [(process.communicate()[1], process.returncode)[1] for process in started] == [0, 0, 0]
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (3,)
        assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (2,)  # Default and ours
    assert len(points(tmp_path / "mlflow.db")) == 3 * 3 * 3
    assert not list(tmp_path.glob(".mlflow*"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def mlflow_server(database: Path, port: int) -> Iterator[None]:
    """A real server on loopback in its own process group; killed without grace at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    folder = database.parent / "server"
    folder.mkdir(exist_ok=True)
    log = open(folder / "log", "ab")  # noqa: SIM115
    process = subprocess.Popen([*command, "--workers", "1"], env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(port, process)
        yield
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        log.close()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("the server did not come up")


@pytest.mark.slow
def test_server_killed_in_the_middle_loses_nothing(root: Path) -> None:
    port = free_port()
    config = tiny_config(root, f"tracking.uri=http://127.0.0.1:{port}")
    run, database = RunPaths(root / "tiny-server"), root / "server.db"
    write_text(run.config, to_yaml(config))
    shutil.copy(root / "mlflow.db", database)
    writer = threading.Thread(target=write_steps, args=(run, 0, range(1, 401)))
    with mlflow_server(database, port):
        ensure_store(config)
        write_steps(run, 0, range(1, 21))
        assert sync([run.root])[0].rows == 20
    writer.start()  # training goes on while nobody listens
    (down,) = sync([run.root])
    writer.join()
    assert down.error and down.rows == 0
    with mlflow_server(database, port):
        assert tracking_uri(config).endswith(str(port))
        (back,) = sync([run.root])
        assert (back.rows, back.error) == (400, "")
        before = points(database)
        assert sync([run.root])[0].rows == 0
    assert points(database) == before
    assert len([key for key, *_ in before if key == "train/loss"]) == 400
