"""What a real run measured becomes the machines' constants: planned with them, the run comes out as it went."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.artifacts import write_text
from cpt.core.errors import UserError
from cpt.core.paths import RunPaths
from cpt.plan import plan, unprepared
from cpt.report import calibration, measures
from cpt.report.calibration import Constant, calibrate, rates_yaml
from cpt.report.facts import Facts, read_facts
from cpt.tracking.goodput import Kind
from tests.ranks import run_ranks
from tests.tiny import SETTINGS, make_run, train_rank

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def facts(root: Path) -> Facts:
    run = make_run(root, "measured", [])
    assert run_ranks(1, train_rank, run, 0) == [0]
    return read_facts(run, "")


@pytest.fixture(scope="module")
def constants(facts: Facts) -> dict[str, Constant]:
    return {constant.name: constant for constant in calibrate(facts)[1]}


def planned(config: RunConfig) -> float:
    return plan(config, unprepared(config)).step_seconds


def test_the_run_is_predicted_by_what_it_measured(facts: Facts, tmp_path: Path) -> None:
    """Through the file that `cpt plan --calibrate` writes, as a choice of `cluster/rates`."""
    rates, _ = calibrate(facts)
    config = compose_config([*SETTINGS, f"run_root={tmp_path}"])
    write_text(config.runs.found("cluster/rates", "measured"), rates_yaml(rates))
    again = compose_config([*SETTINGS, f"run_root={tmp_path}", "cluster/rates=measured"])
    assert again.cluster.rates == rates
    assert planned(again) == pytest.approx(measures.step_seconds(facts), rel=1e-3)
    assert planned(again) != pytest.approx(planned(facts.config), rel=0.01), "it was another number before"


def test_saves_are_as_they_were_measured(facts: Facts, constants: dict[str, Constant]) -> None:
    saved = [event.fields for event in facts.events if event.name == "checkpoint_saved"]
    assert constants["storage_bandwidth"].after == pytest.approx(median(fields["bytes_per_second"] for fields in saved))
    staged = [event.fields["seconds"] for event in facts.events if event.name == "checkpoint_staged"]
    assert constants["copy_bandwidth"].after == pytest.approx(saved[0]["bytes"] / median(staged), rel=0.01)
    assert "4 copies" in constants["copy_bandwidth"].why


def test_times_between_attempts_need_a_supervisor(facts: Facts, constants: dict[str, Constant], full_run: RunPaths) -> None:
    """A run started by hand says nothing of them; one that lost a node does."""
    assert not {"production", "restart_seconds"} & set(constants)
    whole = read_facts(full_run, "")
    spent = measures.spent(whole)
    found = {constant.name: constant for constant in calibrate(whole)[1]}
    assert spent is not None
    training = spent.seconds(Kind.useful) + spent.seconds(Kind.evaluating)
    steps = whole.series("train/step_seconds")
    assert found["production"].after == pytest.approx(max(1.0, training / (len(steps) * measures.step_seconds(whole))))
    restarts = len(whole.attempts) - 1
    assert restarts > 0
    assert 0 < found["restart_seconds"].after * restarts < spent.seconds(Kind.idle) + spent.seconds(Kind.starting)


def test_a_run_without_a_failure_does_not_make_machines_perfect(facts: Facts) -> None:
    """A month's experience outweighs its minute; a failure in that minute counts."""
    rates = replace(facts.config.cluster.rates, failures_per_node_day=0.004)
    seasoned = replace(facts, config=replace(facts.config, cluster=replace(facts.config.cluster, rates=rates)))
    calm = {constant.name: constant.after for constant in calibrate(seasoned)[1]}["failures_per_node_day"]
    assert 0.0039 < calm < 0.004
    lost = replace(seasoned, attempts=[replace(attempt, ending="node_lost") for attempt in facts.attempts])
    assert {constant.name: constant.after for constant in calibrate(lost)[1]}["failures_per_node_day"] == pytest.approx(2 * calm, rel=0.01)


def test_too_few_steps_are_no_measurement(facts: Facts) -> None:
    with pytest.raises(UserError, match=r"has 3 measured step\(s\)"):
        calibrate(replace(facts, rows=[row for row in facts.rows if row.step <= 3]))


def test_a_step_that_no_efficiency_explains_is_said(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster than memory alone would allow: `hardware` is wrong, and no share of the peak mends that."""
    monkeypatch.setattr(calibration.measures, "step_seconds", lambda _: 1e-9)
    with pytest.raises(UserError, match=r"cluster\.hardware"):
        calibrate(facts)


def test_the_verb_writes_a_choice(facts: Facts, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs import plan as verb

    assert verb.main(["--calibrate", str(facts.run.root)]) == 0
    assert "cluster/rates=local_measured" in capsys.readouterr().out
    config = read_config(RunPaths(facts.run.root).config)
    assert config.runs.found("cluster/rates", "local_measured").is_file()
