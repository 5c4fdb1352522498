"""The norm of a long gradient, where a plain fp32 sum is wrong in the fourth digit."""

from __future__ import annotations

import pytest

from cpt.config.compose import compose_config
from cpt.core.world import World
from tests.ranks import run_ranks

pytestmark = pytest.mark.engine


def test_norm_of_millions_of_elements_is_right_to_fp32() -> None:
    import torch

    from cpt.engine.grad_norm import l2_norm

    gradient = torch.randn(4_000_000, generator=torch.Generator().manual_seed(0)) * 1e-3
    exact = float(gradient.double().norm())
    found, _ = l2_norm(0, torch.zeros(1), [[gradient, torch.zeros(3)]], False)
    assert found.shape == (1,)
    assert abs(float(found) - exact) / exact < 1e-7


def norm_in_use(world: World) -> str:
    """The module of the function that an engine's optimizer takes its norm by."""
    from cpt import engine

    config = compose_config(["model=tiny", "corpus=sample", "cluster=local", "train.precision=fp32", "train.train_tokens=10240"])
    engine.initialize(world, config.parallel, config.seed)
    engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer)
    from megatron.core.optimizer import clip_grads

    return str(clip_grads.l2_norm_impl.__module__)


def test_an_optimizer_uses_it() -> None:
    assert run_ranks(1, norm_in_use)[0] == "cpt.engine.grad_norm"
