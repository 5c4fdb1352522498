"""Composing trials section by section gives what Hydra gives when each is composed alone."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from cpt.config import multirun
from cpt.config.compose import compose_config
from cpt.config.multirun import compose_trials
from cpt.config.seal import Texts, to_yaml
from cpt.core.errors import UserError

TRIALS = [
    ["experiment=lr_sweep", f"optimizer.lr_ratio={ratio}", f"mixture={mixture}", *more]
    for ratio in ("0.03", "3e-1")
    for mixture in ("balanced", "domain_heavy")
    for more in (["train.train_tokens=81_920", "+cluster.environment.NCCL_DEBUG='INFO'"], ["slurm.exclude=[node1,node2]", "+cluster.environment.B=c"])
]
ODD = [
    ["experiment=lr_sweep", *more]
    for more in (
        ["seed=7", "name=odd", "seed=8"],
        ["optimizer={lr_ratio: 0.2}"],
        ["optimizer.lr_ratio=${mixture.domain_share}", "mixture.domain_share=0.25"],
        ["corpus=sample", "~corpus.sources.german"],
        ["+slurm.extra={begin: now}", "++slurm.extra.nice='5'"],
        ["schedule.decay=cosine", "schedule=linear"],
        ["cluster.slurm_conf=${oc.env:HOME}/slurm.conf"],
        ["corpus=sample", "model=tiny", "+mixture.weights.novels=2"],
    )
]


@pytest.mark.parametrize("trials", [TRIALS, ODD])
def test_equal_to_composing_each_alone(trials: list[list[str]]) -> None:
    assert [to_yaml(config) for config in compose_trials(trials)] == [to_yaml(compose_config(trial)) for trial in trials]


def test_yaml_is_read_once_per_set_of_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    original = multirun.compose
    monkeypatch.setattr(multirun, "compose", lambda *args, **kwargs: (read.append(kwargs), original(*args, **kwargs))[1])
    compose_trials(TRIALS)
    assert len(TRIALS) == 8 and len(read) == 2


def test_trials_share_what_is_equal_and_sealed() -> None:
    first, second = compose_trials([["experiment=lr_sweep"], ["experiment=lr_sweep", "optimizer.lr_ratio=0.5"]])
    assert (first.optimizer.lr_ratio, second.optimizer.lr_ratio) == (0.1, 0.5)
    assert first.corpus is second.corpus
    for section in (first, second.optimizer, first.corpus):
        with pytest.raises(AttributeError):
            section.name = "other"


def test_text_of_shared_sections_is_the_text_of_the_whole() -> None:
    texts = Texts()
    for config in compose_trials([*TRIALS, *ODD]):
        assert texts.of(config) == OmegaConf.to_yaml(OmegaConf.structured(config))


def test_problems_of_all_trials_at_once() -> None:
    with pytest.raises(UserError) as caught:
        compose_trials([["experiment=lr_sweep", *wrong] for wrong in ([], ["optimizer.lr_ratio=-1"], ["optimizer.nope=1"], ["seed=x"])])
    assert [problem.where.partition(" ")[2].partition(" ")[0] for problem in caught.value.problems] == ["1", "2", "3"]
    assert [problem.where.rpartition(": ")[2] for problem in caught.value.problems] == ["optimizer.lr_ratio", "optimizer.nope", "seed"]


@pytest.mark.parametrize("wrong", ["optimizer.nope=1", "seed=x", "~optimizer.nope", "schedule.decay=up", "+seed=3", "nope.a=1", "slurm.nodes=1.5"])
def test_what_composing_alone_refuses_is_refused_in_the_same_words(wrong: str) -> None:
    with pytest.raises(UserError) as alone:
        compose_config(["experiment=lr_sweep", wrong])
    with pytest.raises(UserError) as together:
        compose_trials([["experiment=lr_sweep"], ["experiment=lr_sweep", wrong]])
    (mine,), (trial,) = alone.value.problems, together.value.problems
    assert trial.where.endswith(f": {mine.where}") and (trial.what, trial.why, trial.fix) == (mine.what, mine.why, mine.fix)
