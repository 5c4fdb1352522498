"""What a power loss cost, from begin, end and journal."""

from __future__ import annotations

import pytest

from cpt.core.paths import RunPaths
from cpt.report import measures
from cpt.report.attempts import restarts
from cpt.report.facts import Facts, read_facts
from cpt.report.timeline import AGAIN, ENDING, GOOD, LOST, STARTING, _phases, timeline
from cpt.report.write import render
from cpt.tracking.goodput import Kind
from cpt.tracking.journal import Journal

from .conftest import START


def facts(run: RunPaths) -> Facts:
    return read_facts(run, "")


def test_a_lost_node_costs_steps_and_an_outage(full_run: RunPaths) -> None:
    known = facts(full_run)
    first, second = known.attempts
    assert (first.ending, first.resume_step, first.last_step, first.kept_step, first.lost_steps) == ("node_lost", 0, 23, 20, 3)
    assert (second.ending, second.resume_step, second.last_step, second.lost_steps) == ("done", 20, 40, 0)
    assert first.nodes == ["node1", "node2"] and second.nodes == ["node1", "node3"]
    (restart,) = restarts(known.attempts)
    assert restart.after.path == "requeue"
    stamps = {(row.attempt, row.step): row.ts_ms / 1000 for row in known.rows if "train/loss" in row.values}
    assert restart.seconds == pytest.approx(stamps[1, 21] - stamps[0, 23], abs=0.01)
    assert first.last_word - first.lost_from == pytest.approx(sum(first.step_seconds[-3:]), abs=0.01)  # evaluation and save of step 20 were not lost


def test_the_page_says_where_the_time_went(full_run: RunPaths) -> None:
    known = facts(full_run)
    spent = measures.spent(known)
    assert spent is not None
    assert spent.wall / 1000 == pytest.approx(known.attempts[-1].end - START + 20, abs=0.01)  # made 20 s before the first attempt
    assert spent.seconds(Kind.recomputed) == pytest.approx(sum(known.attempts[0].step_seconds[-3:]), abs=0.01)
    assert spent.seconds(Kind.evaluating) == pytest.approx(4 * 30)
    text = render(known)
    assert f"{100 * spent.share(Kind.useful):.1f}%" in text and "recomputed" in text and ">requeue<" in text
    (full_run.attempt(0).begin).write_bytes(b"torn")
    assert measures.spent(facts(full_run)) is not None


def test_rank_hours_count_every_attempt_by_its_own_ranks(full_run: RunPaths) -> None:
    known = facts(full_run)
    assert measures.rank_hours(known) == pytest.approx(sum(a.end - a.begin for a in known.attempts) * 6 / 3600)
    assert measures.world_size(known) == 6


def test_consumed_tokens_and_shares_count_no_step_twice(full_run: RunPaths) -> None:
    known = facts(full_run)
    assert measures.consumed_tokens(known) == 40960 and measures.last_step(known) == 40
    assert measures.consumed_shares(known)["listings"] == pytest.approx(0.5, abs=1e-3)
    assert len(known.series("train/loss")) == 40 and [step for step, _ in known.series("train/loss", superseded=True)] == [21, 22, 23]


def test_phases_of_the_bars(full_run: RunPaths) -> None:
    first, second = facts(full_run).attempts
    assert [color for *_, color in _phases(first, 0)] == [STARTING, GOOD, LOST, ENDING]
    again = [phase for phase in _phases(second, first.last_step) if phase[2] == AGAIN]
    assert again[0][1] - again[0][0] == pytest.approx(sum(second.step_seconds[:3]), abs=0.01)


def test_an_attempt_without_end_is_lost_when_another_followed_and_running_when_not(full_run: RunPaths) -> None:
    for number in (0, 1):
        full_run.attempt(number).end.unlink()
    first, second = facts(full_run).attempts
    assert (first.ending, second.ending) == ("no word", "done")  # training itself said done
    full_run.events(1).unlink()
    assert facts(full_run).attempts[1].ending == "running"
    assert first.end == first.steps[-1][0]


def test_damaged_begin_and_missing_folder_fall_back_to_the_journal(full_run: RunPaths) -> None:
    full_run.attempt(0).begin.write_bytes(b"\0\0\0")
    first, _ = facts(full_run).attempts
    assert first.nodes == [] and first.begin == pytest.approx(first.steps[0][0], abs=60) and first.begin_fields["world_size"] == 6
    full_run.attempt(0).end.unlink()
    assert facts(full_run).attempts[0].ending == "not recorded"


def test_attempt_that_never_stepped_is_drawn_and_has_no_outage(bare_run: RunPaths) -> None:
    with Journal(bare_run, 0, clock=lambda: 100.0) as journal:
        journal.event("attempt_begin", resume_step=0, world_size=6)
    with Journal(bare_run, 1, clock=lambda: 200.0) as journal:
        journal.event("attempt_begin", resume_step=0, world_size=6)
    known = facts(bare_run)
    assert [restart.seconds for restart in restarts(known.attempts)] == [None]
    assert timeline(known.attempts, known.drill).startswith(b"\x89PNG")
