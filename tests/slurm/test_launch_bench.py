"""The command itself, in its own process, with a real corpus and base, on a real SLURM: what the bench times."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.core.errors import CptError
from jobs import launch_bench
from slurm import standing


@pytest.mark.slurm
def test_every_trial_is_whole_and_in_the_queue_and_taken_out_again(root: Path, on_cluster: list[str], tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(root / "base")
    (tmp_path / "data").symlink_to(root / "data")
    given = [*launch_bench.TINY, *(item for item in on_cluster if item.startswith("cluster.")), f"run_root={tmp_path}"]
    assert launch_bench.launch(6, 0, given, print) > 0
    sweep = compose_config([*given, "sweep.name=bench-6-0"]).runs.sweep("bench-6-0")
    assert len(sweep.trials()) == 6
    for run in sweep.trials():
        assert all(path.is_file() for path in (run.config, run.run, run.plan, run.script, run.job))
    assert {state for _, _, state, _ in standing.of_sweep(sweep)} == {"not in the queue"}
    assert not (tmp_path / "mlflow.db").exists(), "only `cpt sync` makes the store"
    assert launch_bench.launch(6, 0, given, print) > 0, "what was taken out of the queue is submitted again"


def test_a_verb_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(CptError, match="hydra/launcher=local"):
        launch_bench.cpt("train", "-m", "hydra/launcher=slurm", "cluster=local", f"run_root={tmp_path}", *launch_bench.TINY)
