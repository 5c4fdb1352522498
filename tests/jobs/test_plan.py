"""`cpt plan` and its questions, as a user types them; the flagship's answers are recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.core.errors import UserError
from cpt.core.records import PlanRecord
from jobs import plan

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> object:
    """Ask; returns (exit code, what was printed), paths below the run root as `<root>`."""

    def ask(*arguments: str) -> tuple[int, str]:
        code = plan.main([*arguments, f"run_root={tmp_path}"])
        printed = capsys.readouterr().out.replace(str(tmp_path), "<root>")
        return code, "\n".join(line.rstrip() for line in printed.splitlines())

    return ask


@pytest.mark.parametrize("experiment", ["ellama_70b", "ellama_8b"])
def test_the_flagships_plans_are_as_recorded(asked, experiment: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """From the experiment alone; a change of any formula shows here."""
    code, printed = asked(f"experiment={experiment}")
    assert code == 0
    recorded = GOLDEN / f"plan_{experiment}.txt"
    assert printed == recorded.read_text().rstrip("\n"), f"if it is meant: write it to {recorded}"
    (kept,) = (tmp_path / "plans").glob(f"{experiment}-*.json")
    assert PlanRecord.load(kept).steps == 84_771


def test_search_shows_ten_and_leaves_the_best(asked, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, printed = asked("--search", "experiment=ellama_70b")
    assert code == 0
    assert "8,640 layouts" in printed
    assert "87 (chosen)" in printed
    assert "when nodes are lost" in printed
    chosen = compose_config(["experiment=ellama_70b", "parallel=ellama_70b-480", f"run_root={tmp_path}"])
    assert (chosen.parallel.tensor_parallel_size, chosen.parallel.context_parallel_size, chosen.train.micro_batch_size) == (4, 2, 1)


def test_reliability_weighs_and_draws(asked, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, printed = asked("--reliability", "experiment=ellama_70b")
    assert code == 0
    for word in ("RSC-1 x 3.7", "checkpoint.interval=", "slurm.spare_nodes=", "slurm.signal_lead="):
        assert word in printed
    (picture,) = (tmp_path / "plans").glob("*.reliability.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_advice_is_for_the_tier_that_a_failure_falls_back_to(asked) -> None:  # type: ignore[no-untyped-def]
    printed = asked("--reliability", "experiment=ellama_70b", "checkpoint.fast_folder=/local", "checkpoint.fast_interval=20")[1]
    assert "checkpoint.fast_interval=" in printed
    assert "checkpoint.interval=" not in printed


def test_without_failures_there_is_nothing_to_weigh(asked) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="failures_per_node_day"):
        asked("--reliability", "experiment=demo")


def test_validate_says_how_many_hold(asked, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, printed = asked("--validate")
    assert code == 0
    assert printed.splitlines()[-1].endswith("6 are known not to")
    assert (tmp_path / "plans" / "validation.png").is_file()


def test_two_questions_at_once_are_refused(asked, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit):
        asked("--search", "--validate")
    assert "not allowed with argument" in capsys.readouterr().err


def test_another_cluster_is_another_plan(asked) -> None:  # type: ignore[no-untyped-def]
    """Twice the memory bandwidth and NVLink, and the price of an hour: what a user types to compare offers."""
    hopper = asked("experiment=ellama_70b")[1]
    offer = asked("experiment=ellama_70b", "cluster.hardware.memory_bandwidth=4.8e12", "cluster.gpu_hour_price=2.5")[1]
    assert "cluster.gpu_hour_price is not set" in hopper
    assert "USD at 2.5 an hour" in offer
