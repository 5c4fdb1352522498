"""The norm of a long gradient, where a plain fp32 sum is wrong in the fourth digit."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.engine


def test_norm_of_millions_of_elements_is_right_to_fp32() -> None:
    import torch

    from cpt.engine.grad_norm import l2_norm

    gradient = torch.randn(4_000_000, generator=torch.Generator().manual_seed(0)) * 1e-3
    exact = float(gradient.double().norm())
    found, _ = l2_norm(0, torch.zeros(1), [[gradient, torch.zeros(3)]], False)
    assert found.shape == (1,)
    assert abs(float(found) - exact) / exact < 1e-7


def test_megatron_uses_it() -> None:
    import cpt.engine  # noqa: F401
    from cpt.engine import grad_norm

    grad_norm.install()
    from megatron.core.optimizer import clip_grads
    from megatron.core.utils import local_multi_tensor_l2_norm

    assert clip_grads.l2_norm_impl is not local_multi_tensor_l2_norm
