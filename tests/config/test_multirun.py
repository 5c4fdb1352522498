"""Composing trials once per set of group choices gives what Hydra gives when each is composed alone."""

from __future__ import annotations

import pytest

from cpt.config import multirun
from cpt.config.compose import compose_config
from cpt.config.multirun import compose_trials
from cpt.config.seal import to_yaml
from cpt.core.errors import UserError

TRIALS = [
    ["experiment=lr_sweep", f"optimizer.lr_ratio={ratio}", f"mixture={mixture}", *more]
    for ratio in ("0.03", "3e-1")
    for mixture in ("balanced", "domain_heavy")
    for more in (["train.train_tokens=81_920", "cluster.environment.NCCL_DEBUG='INFO'"], ["slurm.exclude=[node1,node2]", "+cluster.environment.B=c"])
]
TRIALS = [[item.replace("cluster.environment.NCCL", "+cluster.environment.NCCL") for item in trial] for trial in TRIALS]


def test_equal_to_composing_each_alone() -> None:
    assert [to_yaml(config) for config in compose_trials(TRIALS)] == [to_yaml(compose_config(trial)) for trial in TRIALS]


def test_yaml_is_read_once_per_set_of_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    original = multirun.compose
    monkeypatch.setattr(multirun, "compose", lambda *args, **kwargs: (read.append(kwargs), original(*args, **kwargs))[1])
    compose_trials(TRIALS)
    assert len(TRIALS) == 8 and len(read) == 2


def test_trials_are_sealed_and_share_nothing() -> None:
    first, second = compose_trials([["experiment=lr_sweep"], ["experiment=lr_sweep", "optimizer.lr_ratio=0.5"]])
    assert (first.optimizer.lr_ratio, second.optimizer.lr_ratio) == (0.1, 0.5)
    with pytest.raises(AttributeError):
        first.seed = 2


def test_problems_of_all_trials_at_once() -> None:
    with pytest.raises(UserError) as caught:
        compose_trials([["experiment=lr_sweep", *wrong] for wrong in ([], ["optimizer.lr_ratio=-1"], ["optimizer.nope=1"], ["seed=x"])])
    assert [problem.where.partition(" ")[2].partition(" ")[0] for problem in caught.value.problems] == ["1", "2", "3"]
    assert [problem.where.rpartition(": ")[2] for problem in caught.value.problems] == ["optimizer.lr_ratio", "optimizer.nope", "seed"]
