"""The journal: what a kill may leave behind, and which rows still count."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from cpt.core.paths import RunPaths
from cpt.tracking.journal import Journal, read_events, read_metrics, series


def test_rows_come_back_as_written_with_the_given_clock(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    with Journal(run, 0, clock=lambda: 1700000000.1234) as journal:
        journal.event("attempt_begin", resume_step=0, layout="tp1", world_size=1)
        journal.metrics(1, 8, 2048, {"train/loss": 2.5})
        journal.metrics(2, 16, 4096, {"train/loss": math.nan})
        journal.sync()
    first, second = read_metrics(run)
    assert (first.ts_ms, first.attempt, first.seq, first.step, first.consumed_samples, first.consumed_tokens) == (1700000000123, 0, 0, 1, 8, 2048)
    assert first.values == {"train/loss": 2.5} and not first.superseded
    assert second.seq == 1 and math.isnan(second.values["train/loss"])
    (event,) = read_events(run)
    assert event.name == "attempt_begin" and event.fields == {"resume_step": 0, "layout": "tp1", "world_size": 1}


def test_line_has_the_promised_keys(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    with Journal(run, 3) as journal:
        journal.metrics(1, 8, 2048, {"train/loss": 2.5})
        journal.event("stop", reason="done", step=1)
    assert set(json.loads(run.metrics(3).read_text())) == {"ts_ms", "attempt", "seq", "step", "consumed_samples", "consumed_tokens", "values"}
    assert set(json.loads(run.events(3).read_text())) == {"ts_ms", "attempt", "seq", "event", "reason", "step"}


def test_rows_beyond_the_next_resume_step_are_superseded(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    for attempt, resume, steps in ((0, 0, range(1, 14)), (1, 10, range(11, 13)), (2, 10, range(11, 15))):
        with Journal(run, attempt) as journal:
            journal.event("attempt_begin", resume_step=resume)
            for step in steps:
                journal.metrics(step, step, step, {"train/loss": float(attempt)})
    alive = [(row.step, row.attempt) for row in read_metrics(run) if not row.superseded]
    assert alive == [(step, 0) for step in range(1, 11)] + [(step, 2) for step in range(11, 15)]


def test_rows_beyond_a_rollback_are_superseded(tmp_path: Path) -> None:
    """Also those of the attempt that rolled back, and of attempts before it."""
    run, clock = RunPaths(tmp_path), iter(range(1, 100))
    for attempt, resume, steps in ((0, 0, range(1, 8)), (1, 6, range(7, 11))):
        with Journal(run, attempt, clock=lambda: float(next(clock))) as journal:
            journal.event("attempt_begin", resume_step=resume)
            for step in steps:
                journal.metrics(step, step, step, {"train/loss": float(attempt)})
    with Journal(run, 1, clock=lambda: float(next(clock))) as journal:
        journal.event("rollback", step=5)
        journal.metrics(6, 6, 6, {"train/loss": 2.0})
    alive = [(row.step, row.values["train/loss"]) for row in read_metrics(run) if not row.superseded]
    assert alive == [(step, 0.0) for step in range(1, 6)] + [(6, 2.0)]
    assert list(series(run, "train/loss")) == [1, 2, 3, 4, 5, 6]


def test_an_attempt_that_begins_twice_went_back_to_where_it_began_first(tmp_path: Path) -> None:
    """What it wrote in between was written beyond that, and supersedes what earlier attempts wrote."""
    run = RunPaths(tmp_path)
    with Journal(run, 0) as journal:
        journal.event("attempt_begin", resume_step=0)
        journal.metrics(4, 4, 4, {"train/loss": 0.0})
    with Journal(run, 1) as journal:
        journal.event("attempt_begin", resume_step=3)
        journal.metrics(4, 4, 4, {"train/loss": 1.0})
        journal.event("attempt_begin", resume_step=4)
        journal.metrics(5, 5, 5, {"train/loss": 1.0})
    assert [(row.attempt, row.step) for row in read_metrics(run) if not row.superseded] == [(1, 4), (1, 5)]


def test_ten_or_more_attempts_are_read_in_numeric_order(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    for attempt in (1000, 2, 999):
        with Journal(run, attempt) as journal:
            journal.metrics(attempt, 0, 0, {"x": 0.0})
    assert [row.attempt for row in read_metrics(run)] == [2, 999, 1000]


def test_torn_last_line_is_dropped_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    with Journal(run, 0) as journal:
        journal.metrics(1, 1, 1, {"train/loss": 1.0})
    with open(run.metrics(0), "ab") as file:
        file.write(b'{"ts_ms":17,"attempt":0,"seq":1,"st')
    assert [row.step for row in read_metrics(run)] == [1]
    with Journal(run, 0) as journal:
        journal.metrics(2, 2, 2, {"train/loss": 2.0})
    assert [(row.step, row.seq) for row in read_metrics(run)] == [(1, 0), (2, 2)]


def test_sigkill_while_writing_leaves_only_whole_rows(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from cpt.core.paths import RunPaths
        from cpt.tracking.journal import Journal
        journal = Journal(RunPaths(Path(sys.argv[1])), 0)
        for step in range(10**9):
            journal.metrics(step, step, step, {f"train/loss/{i}": i / 7 for i in range(50)})
            if step == 200:
                print("far enough", flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    rows = read_metrics(RunPaths(tmp_path))
    assert len(rows) > 200
    assert [row.step for row in rows] == list(range(len(rows))) and all(len(row.values) == 50 for row in rows)


def test_nothing_journaled_reads_as_nothing(tmp_path: Path) -> None:
    assert read_metrics(RunPaths(tmp_path)) == [] and read_events(RunPaths(tmp_path)) == []


def test_series_takes_the_rows_that_count(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    for attempt, resume, steps in ((0, 0, (0, 2, 4)), (1, 2, (4, 6))):
        with Journal(run, attempt) as journal:
            journal.event("attempt_begin", resume_step=resume)
            for step in steps:
                journal.metrics(step, 0, 0, {"heldout/loss/domain": step + attempt / 10})
                journal.metrics(step, 0, 0, {"train/loss": 0.0})
    assert series(run, "heldout/loss/domain") == {0: 0.0, 2: 2.0, 4: 4.1, 6: 6.1}
    assert series(run, "no/such") == {}
