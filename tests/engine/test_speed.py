"""What was made faster still computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cpt.core.world import World
from tests.engine.test_traps import batch, config_of, same_weights
from tests.ranks import run_ranks

pytestmark = pytest.mark.engine


def trained(overrides: list[str]) -> tuple[list[tuple[float, float]], dict[str, Any]]:
    """(loss, grad norm) of three steps of two micro-batches, and the weights they lead to."""
    config = config_of(*overrides)
    engine = same_weights(config)
    results = [engine.train_step(batch(config), 1, 1e-2) for _ in range(3)]
    return [(result.loss, result.grad_norm) for result in results], {
        name: weight.numpy() for name, weight in engine.chunks[0].state_dict().items() if weight is not None
    }


def with_and_without(world: World) -> list[tuple[list[tuple[float, float]], dict[str, Any]]]:
    """As it is; then with megatron-core's own collectives, copies, scaling and gradient accumulation."""
    from unittest import mock

    from cpt import engine
    from cpt.engine import accumulate, alone, optimizer

    config = config_of()
    engine.initialize(world, config.parallel, config.seed)
    with (
        mock.patch.object(accumulate, "install", lambda _: accumulate.NONE),
        mock.patch.object(alone, "install", lambda: None),
        mock.patch.object(optimizer, "_update_in_place", lambda _: None),
    ):
        plain = trained([])
    return [trained([]), plain]


def test_one_rank_without_copies_trains_to_the_same_weights() -> None:
    """Not bit for bit: a product that is added inside the kernel is rounded once less."""
    (fast, weights), (plain, expected) = run_ranks(1, with_and_without)[0]
    np.testing.assert_allclose(fast, plain, rtol=1e-6)
    for name, weight in weights.items():
        np.testing.assert_allclose(weight, expected[name], atol=1e-6, err_msg=name)


def fused_and_plain(world: World, precision: str) -> dict[str, tuple[list[tuple[float, float]], int, str]]:
    """By `parallel.fusion`: (loss, grad norm) of three steps, bytes that a forward pass keeps, what was chosen."""
    from cpt import engine
    from cpt.engine import fusion

    engine.initialize(world, config_of().parallel, 1)
    found = {}
    for choice in ("plain", "fused", "auto"):
        config = config_of(f"parallel.fusion={choice}", f"train.precision={precision}")
        model = same_weights(config)
        results = [model.train_step(batch(config), 2, 1e-2) for _ in range(3)]
        chosen = fusion.describe(config.parallel.fusion, config.train.precision)
        found[choice] = ([(result.loss, result.grad_norm) for result in results], kept(model, batch(config)), chosen)
    return found


def kept(model: Any, tokens: Any) -> int:
    import torch

    found: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    rows = torch.from_numpy(tokens[:, :-1].copy()).to(torch.cuda.current_device())
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.modules[0](rows, torch.arange(rows.shape[1], device=rows.device).expand_as(rows), None)
    del output
    return sum(found.values())


@pytest.mark.parametrize(("precision", "loss", "norm"), [("fp32", 1e-6, 1e-5), ("bf16", 2e-3, 2e-2)])
def test_fused_is_plain_but_for_rounding(precision: str, loss: float, norm: float) -> None:
    """bf16 has 8 bits: where the fused norm rounds once, the plain one rounds twice."""
    import torch

    found = run_ranks(1, fused_and_plain, precision)[0]
    (plain, plain_bytes, _), (fused, fused_bytes, said) = found["plain"], found["fused"]
    np.testing.assert_allclose([step[0] for step in fused], [step[0] for step in plain], rtol=loss)
    np.testing.assert_allclose([step[1] for step in fused], [step[1] for step in plain], rtol=norm)
    assert fused_bytes < plain_bytes
    assert ("cross entropy" in said) == (precision == "bf16"), "megatron-core's would round fp32 gradients to bf16"
    assert found["auto"][2] == found["fused" if torch.cuda.is_available() else "plain"][2]


def products(_world: World, dtype: str) -> tuple[bool, float]:
    """(whether torch adds such products, largest error of one added to a buffer that is not empty, relative to its largest value)."""
    import torch

    from cpt.engine import accumulate

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = getattr(torch, dtype)
    if not accumulate.works(kind):
        return False, 0.0
    source, grad = (torch.randn(96, size, generator=torch.Generator().manual_seed(size)).to(device, kind) for size in (40, 24))
    buffer = torch.randn(24, 40, generator=torch.Generator().manual_seed(0)).to(device)
    expected = buffer.double() + grad.double().t() @ source.double()
    accumulate.add_product(source, grad, buffer)
    return True, float((buffer - expected).abs().max() / expected.abs().max())


def test_products_are_added_in_fp32_or_not_offered() -> None:
    import torch

    assert run_ranks(1, products, "float32")[0] == (True, pytest.approx(0, abs=1e-6))
    if not torch.cuda.is_available():
        assert run_ranks(1, products, "bfloat16")[0][0] is False


@pytest.mark.gpu
def test_bf16_products_are_added_in_fp32_on_cuda() -> None:
    """Rounded to bf16 first, the error would be some 4e-3."""
    assert run_ranks(1, products, "bfloat16")[0] == (True, pytest.approx(0, abs=1e-5))


def test_clipping_scales_in_place_and_nothing_else() -> None:
    import torch

    from cpt.engine.grad_norm import scale

    gradients = [torch.ones(3), torch.full((2, 2), 4.0)]
    scale(0, torch.zeros(1), [gradients, gradients], 0.5)
    assert [gradient.flatten().tolist() for gradient in gradients] == [[0.5] * 3, [2.0] * 4]
    with pytest.raises(ValueError, match="in place"):
        scale(0, torch.zeros(1), [gradients, [torch.ones(3), torch.ones(2, 2)]], 0.5)


def test_only_a_group_of_one_skips_its_collectives() -> None:
    import torch

    from cpt.engine.alone import UnlessAlone

    calls: list[int] = []
    collective = UnlessAlone(lambda *_, **__: calls.append(1))
    whole = torch.arange(4.0)
    collective(whole, whole, group=None)
    collective(whole[:4].view(-1), whole, group=None)
    assert not calls
    collective(whole[:2], whole, group=None)
    collective(torch.empty(4), whole, group=None)
    collective(whole, whole, group=None, async_op=True)
    assert len(calls) == 3
