"""A sweep's decision, from real run directories to a config that composes."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_text
from cpt.core.attempts import Action, AttemptEnd, Ending, StopRecord
from cpt.core.errors import CptError, UserError
from cpt.core.paths import RunPaths, SweepPaths
from cpt.core.records import SweepRecord, SweepTable, TrialRow
from cpt.sweep.choose import choose, chosen_yaml, decide
from cpt.sweep.collect import trial_state
from cpt.sweep.policy import sweep_policy
from cpt.sweep.wait import progress, watch
from cpt.tracking.journal import Journal, series
from jobs.sweep import main

SMALL = "train.train_tokens=20480"
LOSSES = {  # (lr_ratio, domain_share) -> domain, general; the base has 3.00 and 2.50
    ("0.03", "0.5"): (2.90, 2.51),
    ("0.3", "0.5"): (2.70, 2.54),
    ("0.03", "0.8"): (2.85, 2.53),
    ("0.3", "0.8"): (2.60, 2.60),
}


@pytest.fixture
def sweep(tmp_path: Path) -> SweepPaths:
    paths = SweepPaths(tmp_path / "sweeps" / "lr")
    trials = [[f"optimizer.lr_ratio={lr}", f"mixture.domain_share={share}"] for lr, share in LOSSES]
    SweepRecord(name="lr", job="17", command=["cpt", "train", "-m"], trials=trials).save(paths.sweep)
    for index, (overrides, losses) in enumerate(zip(trials, LOSSES.values(), strict=True)):
        finish(paths.trial(index), overrides, *losses, root=tmp_path)
    return paths


def finish(run: RunPaths, overrides: list[str], domain: float, general: float, root: Path) -> None:
    write_text(run.config, to_yaml(compose_config(["experiment=lr_sweep", f"run_root={root}", *overrides])))
    with Journal(run, 0) as journal:
        journal.event("attempt_begin", resume_step=0)
        for step, (ours, theirs) in {0: (3.0, 2.5), 6: (2.95, 2.5), 12: (domain, general)}.items():
            journal.metrics(step, step * 4, step * 1024, {"heldout/loss/domain": ours, "heldout/loss/general": theirs, "heldout/loss/novels": theirs})
    StopRecord(reason="done", step=12, attempt=0).save(run.stopped)


def row(index: int, domain: float | None, general: float | None, **rises: float) -> TrialRow:
    state = "failed" if domain is None else "done"
    return TrialRow(index=index, fingerprint="", overrides=[], settings={}, state=state, domain_loss=domain, general_loss=general, rises=rises)


def test_lowest_domain_loss_within_the_forgetting_limit_is_chosen(sweep: SweepPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sweep", "lr", f"run_root={tmp_path}"]) == 0
    table = SweepTable.load(sweep.table)
    assert (table.chosen, table.base_domain_loss, table.base_general_loss) == (1, 3.0, 2.5)
    assert [(r.domain_loss, r.general_loss) for r in table.rows] == list(LOSSES.values())
    assert table.rows[1].settings == {"optimizer.lr_ratio": 0.3, "mixture.domain_share": 0.5}
    shown = capsys.readouterr().out
    assert "001 *" in shown and "lr_ratio" in shown and "chosen=lr" in shown


def test_the_choice_composes_into_the_next_stage(sweep: SweepPaths, tmp_path: Path) -> None:
    main(["--sweep", "lr", f"run_root={tmp_path}", "sweep.forgetting_limit=0.2"])
    config = compose_config([SMALL, f"run_root={tmp_path}", "chosen=lr"])
    assert (config.optimizer.lr_ratio, config.mixture.domain_share) == (0.3, 0.8)
    assert compose_config([SMALL, f"run_root={tmp_path}"]).mixture.domain_share == 0.5


def test_running_trials_leave_no_choice_unless_asked(sweep: SweepPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.trial(1).stopped.unlink()
    assert main(["--sweep", "lr", f"run_root={tmp_path}"]) == 0
    assert not sweep.table.exists() and "3 done, 1 running" in capsys.readouterr().out
    assert main(["--sweep", "lr", f"run_root={tmp_path}", "--now"]) == 0
    assert SweepTable.load(sweep.table).chosen == 2


def test_when_all_forget_too_much_the_smallest_rise_is_taken_and_said() -> None:
    chosen, reason = choose([row(0, 2.0, 2.9, novels=0.4), row(1, 2.5, 2.7, novels=0.2)], limit=0.05)
    assert chosen == 1 and "every trial forgets more than 0.05" in reason and "novels +0.2000" in reason


def test_a_rise_of_exactly_the_limit_qualifies() -> None:
    assert choose([row(0, 2.0, 2.75, novels=0.25), row(1, 2.5, 2.5, novels=0.0)], limit=0.25)[0] == 0


def test_a_source_that_is_forgotten_is_not_hidden_by_one_that_gains() -> None:
    rows = [row(0, 2.0, 2.4, dictionary=-0.5, german=0.3), row(1, 2.5, 2.45, dictionary=-0.1, german=0.0)]
    chosen, reason = choose(rows, limit=0.05)
    assert chosen == 1 and "german +0.0000" in reason


def test_a_diverged_trial_is_never_chosen() -> None:
    nan = float("nan")
    rows = [row(0, nan, nan, novels=nan), row(1, 2.5, 2.7, novels=0.2)]
    assert choose(rows, limit=0.05)[0] == 1
    assert choose(rows, limit=0.5)[0] == 1
    assert choose(rows[:1], limit=0.5)[0] is None


def test_unknown_base_is_said_and_means_caution() -> None:
    chosen, reason = choose([row(0, 2.0, 2.9), row(1, 2.5, 2.7)], limit=0.05)
    assert chosen == 1 and "base was not evaluated" in reason


def test_nothing_done_chooses_nothing() -> None:
    assert choose([row(0, None, None)], 0.05) == (None, "no trial is done with a finite loss")


def test_all_failed_is_our_failure(sweep: SweepPaths, tmp_path: Path) -> None:
    for run in sweep.trials():
        run.stopped.unlink()
        end(run, "fail")
    assert main(["--sweep", "lr", f"run_root={tmp_path}"]) == 1
    assert not (tmp_path / "conf").exists()


def end(run: RunPaths, action: str) -> None:
    record = AttemptEnd(number=0, ending=Ending.rank_crash, action=Action(action), code=1, message="", step=3, time=0.0)
    record.save(run.attempt(0).end)


def test_states_come_from_files(sweep: SweepPaths) -> None:
    run = sweep.trial(0)
    assert trial_state(run) == "done"
    StopRecord(reason="signal", step=3, attempt=0).save(run.stopped)
    assert trial_state(run) == "running"
    end(run, "requeue")
    assert trial_state(run) == "running"
    end(run, "hold")
    assert trial_state(run) == "failed"
    run.attempt(1).root.mkdir(parents=True)
    assert trial_state(run) == "running"
    assert trial_state(sweep.trial(9)) == "queued"


def test_an_axis_that_is_not_carried_over_is_noted(sweep: SweepPaths) -> None:
    policy = compose_config([SMALL, "sweep.keys=[optimizer.lr_ratio]"]).sweep
    table = decide(sweep, policy, series)
    assert table.notes == ["mixture.domain_share differs between trials but is not in sweep.keys, so it is not carried over"]
    assert chosen_yaml(table, table.rows[1]).endswith("optimizer:\n  lr_ratio: 0.3\n")


def test_a_group_axis_is_carried_by_a_key_inside_it(sweep: SweepPaths, tmp_path: Path) -> None:
    trials = [["mixture=balanced"], ["mixture=domain_heavy"]]
    SweepRecord(name="lr", job="17", command=[], trials=trials).save(sweep.sweep)
    assert decide(sweep, sweep_policy(sweep, compose_config([], validated=False), []), series).notes == []


def test_policy_is_the_submitted_one_unless_the_command_line_says_otherwise(sweep: SweepPaths, tmp_path: Path) -> None:
    write_text(sweep.trial(0).config, to_yaml(compose_config(["experiment=lr_sweep", "sweep.forgetting_limit=0.01"])))
    assert sweep_policy(sweep, compose_config([], validated=False), []).forgetting_limit == 0.01
    assert sweep_policy(sweep, compose_config([SMALL, "sweep.forgetting_limit=0.3"]), ["sweep.forgetting_limit=0.3"]).forgetting_limit == 0.3


def test_unknown_sweep_and_unknown_key_are_the_users_errors(sweep: SweepPaths, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--sweep lr"):
        main(["--sweep", "other", f"run_root={tmp_path}"])
    with pytest.raises(UserError, match=r"optimizer\.speed"):
        decide(sweep, compose_config([SMALL, "sweep.keys=[optimizer.speed]"]).sweep, series)


def table_of(*states: str) -> SweepTable:
    rows = [dataclasses.replace(row(index, None, None), state=state) for index, state in enumerate(states)]
    return SweepTable(name="lr", rows=rows, base_domain_loss=None, base_general_loss=None, forgetting_limit=0.05, chosen=None, reason="")


def test_watch_reports_each_change_once_and_ends_with_the_last_trial() -> None:
    looks = iter([table_of("queued", "queued"), table_of("queued", "queued"), table_of("running", "done"), table_of("failed", "done")])
    seen = [progress(table) for table in watch(lambda: next(looks), timeout=0, sleep=lambda _: None)]
    assert seen == ["2 queued", "1 done, 1 running", "1 done, 1 failed"]


def test_watch_gives_up_after_the_timeout() -> None:
    clock = itertools.count(0, 50)
    with pytest.raises(CptError, match="1 queued after 100 s"):
        list(watch(lambda: table_of("queued"), timeout=100, clock=lambda: next(clock), sleep=lambda _: None))
