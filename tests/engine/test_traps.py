"""What goes wrong without a word. Each test takes a cure away and finds the wrong number, and the right one with it.

When the wrong number does not come any more, the library has mended it: the test fails, and the cure can go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.core.world import World
from tests.ranks import run_ranks

pytestmark = pytest.mark.engine

MENDED = "megatron-core or torch mended this: the wrong number does not come any more, take the cure out"
SETTINGS = ["model=tiny", "corpus=sample", "cluster=local", "train.precision=fp32", "train.train_tokens=10240"]
TP2 = ["slurm.tasks_per_node=2", "parallel.tensor_parallel_size=2", "parallel.sequence_parallel=true"]
Cure = Callable[[], AbstractContextManager[Any]]
"""Opened, it takes a cure away."""


def config_of(*overrides: str) -> RunConfig:
    return compose_config([*SETTINGS, *overrides])


def steps(config: RunConfig, count: int) -> list[tuple[float, float]]:
    """(loss, grad norm) of updates on one batch, from weights that do not depend on the layout."""
    engine = same_weights(config)
    tokens = batch(config)
    return [(result.loss, result.grad_norm) for result in (engine.train_step(tokens, 1, 1e-2) for _ in range(count))]


def same_weights(config: RunConfig) -> Any:
    """An engine whose weights are the same functions of name and place in every layout."""
    import torch
    from megatron.core import parallel_state

    from cpt.engine import Engine

    engine = Engine(config.model, config.parallel, config.train.precision, config.optimizer)
    rank, size = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_tensor_model_parallel_world_size()
    with torch.no_grad():
        for name, weight in engine.chunks[0].named_parameters():
            if weight.dim() == 1:
                continue  # norms are ones
            along = 1 if name.endswith(("linear_proj.weight", "linear_fc2.weight")) else 0
            shape = list(weight.shape)
            shape[along] *= size
            whole = torch.randn(shape, generator=torch.Generator().manual_seed(len(name))) * 0.1
            if name.endswith("linear_fc1.weight"):  # gate and up are cut each
                weight.copy_(torch.cat([half.chunk(size)[rank] for half in whole.chunk(2)]))
            else:
                weight.copy_(whole.chunk(size, dim=along)[rank])
    engine.weights_changed()
    return engine


def batch(config: RunConfig) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, config.model.vocab_size, (2, 33))


def with_and_without(world: World, overrides: list[str], cure: Cure, ask: Callable[[RunConfig], Any]) -> tuple[Any, Any]:
    """(answer with the cure, answer without) of one world."""
    from cpt import engine

    config = config_of(*overrides)
    engine.initialize(world, config.parallel, config.seed)
    kept = ask(config)
    with cure():
        return kept, ask(config)


def three_steps(config: RunConfig) -> list[tuple[float, float]]:
    return steps(config, 3)


@pytest.fixture(scope="module")
def one_rank() -> list[tuple[float, float]]:
    """What every layout must give."""
    found: list[tuple[float, float]] = run_ranks(1, with_and_without, [], nullcontext, three_steps)[0][0]
    return found


def torch_adam() -> AbstractContextManager[Any]:
    """megatron-core with torch's own AdamW, as it comes where neither apex nor Transformer Engine is."""
    from cpt.engine import adam

    adam.install()
    import megatron.core.optimizer as optimizer
    import megatron.core.optimizer.distrib_optimizer as distributed
    import torch

    stack = [
        mock.patch.object(optimizer, "Adam", torch.optim.AdamW),
        mock.patch.object(distributed, "Adam", torch.optim.AdamW),
        mock.patch.object(optimizer, "USING_PYTORCH_OPTIMIZER", True),
        mock.patch.object(distributed, "HAVE_APEX_OR_TE", False),
        mock.patch.object(distributed, "USING_APEX_OPTIMIZER", False),
        mock.patch.object(adam, "install", lambda: None),
    ]
    return all_of(stack)


@contextmanager
def all_of(contexts: list[Any]) -> Iterator[None]:
    from contextlib import ExitStack

    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def counted(config: RunConfig) -> list[float]:
    """Steps that Adam has counted for each parameter: two, its state written and read, one more."""
    engine = same_weights(config)
    tokens = batch(config)
    for _ in range(2):
        engine.train_step(tokens, 1, 1e-3)
    engine.optimizer.load_state_dict(engine.optimizer.state_dict())
    engine.train_step(tokens, 1, 1e-3)
    adam = engine.optimizer.chained_optimizers[0].optimizer
    return [float(state["step"]) for state in adam.state.values() if "step" in state] or [float(group["step"]) for group in adam.param_groups]


def test_adam_counts_one_step_a_step_after_a_resume() -> None:
    """megatron-core gives torch's AdamW one `step` tensor for all parameters: each adds one, and the bias correction is off."""
    right, wrong = run_ranks(1, with_and_without, [], torch_adam, counted)[0]
    assert set(right) == {3.0}
    assert max(wrong) > 3.0, MENDED


def uninitialized() -> AbstractContextManager[Any]:
    """`perform_initialization=False`, to save time when weights are loaded anyway."""
    from cpt.engine import model

    original = model.transformer_config
    return mock.patch.object(model, "transformer_config", lambda *args: replace(original(*args), perform_initialization=False))


def deaf_norm() -> AbstractContextManager[Any]:
    """torch's RMSNorm under sequence parallelism: its weight does not say that every rank sees other tokens."""
    from cpt.engine import norm

    original = norm.RMSNorm.__init__

    def silent(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.weight.sequence_parallel = False

    return mock.patch.object(norm.RMSNorm, "__init__", silent)


def test_grad_norm_under_tensor_parallelism_with_and_without_initialization(one_rank: list[tuple[float, float]]) -> None:
    """megatron-core 0.16 set `tensor_model_parallel` on weights only while it initialized them, and counted rank 0's part alone; 0.19 does not."""
    for found in run_ranks(2, with_and_without, TP2, uninitialized, three_steps)[0]:
        np.testing.assert_allclose(found, one_rank, rtol=1e-5)


def test_norms_know_of_sequence_parallelism(one_rank: list[tuple[float, float]]) -> None:
    """Else their gradients are not summed over tensor-parallel ranks, and copies that should be one drift apart."""
    right, wrong = run_ranks(2, with_and_without, TP2, deaf_norm, three_steps)[0]
    np.testing.assert_allclose(right, one_rank, rtol=1e-5)
    assert wrong[0][0] == pytest.approx(one_rank[0][0], rel=1e-5)
    assert abs(wrong[0][1] / one_rank[0][1] - 1) > 1e-4, MENDED
    assert abs(wrong[2][0] / one_rank[2][0] - 1) > 1e-5, MENDED


def fused_cross_entropy() -> AbstractContextManager[Any]:
    """`cross_entropy_loss_fusion`, whatever the precision."""
    from cpt.engine import model

    original = model.transformer_config
    return mock.patch.object(model, "transformer_config", lambda *args: replace(original(*args), cross_entropy_loss_fusion=True))


def first_gradient(config: RunConfig) -> Any:
    """Of the embedding, which is also the output layer."""
    engine = same_weights(config)
    engine.compute_gradients(batch(config), 1)
    return engine.chunks[0].embedding.word_embeddings.weight.main_grad.clone().numpy()


def test_fused_cross_entropy_is_for_bf16_alone() -> None:
    """megatron-core's casts the gradient of the logits to bf16 even in fp32: no loss shows it, every gradient is off in the third digit."""
    right, wrong = run_ranks(1, with_and_without, ["parallel.fusion=fused"], fused_cross_entropy, first_gradient)[0]
    exact, _ = run_ranks(1, with_and_without, ["parallel.fusion=plain"], nullcontext, first_gradient)[0]
    scale = float(np.abs(exact).max())
    assert float(np.abs(right - exact).max()) < 1e-5 * scale
    assert float(np.abs(wrong - exact).max()) > 1e-4 * scale, MENDED


def norms(_world: World) -> tuple[float, float, float]:
    """Grad norm of 4M values: (fp64, ours, megatron-core's own)."""
    import torch
    from megatron.core.utils import local_multi_tensor_l2_norm

    from cpt.engine.grad_norm import l2_norm

    gradient = torch.randn(4_000_000, generator=torch.Generator().manual_seed(0)) * 1e-3
    nothing = torch.zeros(1)
    return (
        float(gradient.double().norm()),
        float(l2_norm(0, nothing, [[gradient]], False)[0]),
        float(local_multi_tensor_l2_norm(0, nothing, [[gradient]], False)[0]),
    )


def test_grad_norm_of_long_tensors() -> None:
    """megatron-core's fallback adds squares in fp32: the norm is off in the fourth digit, by another amount in each layout."""
    exact, right, wrong = run_ranks(1, norms)[0]
    assert abs(right / exact - 1) < 1e-7
    assert abs(wrong / exact - 1) > 1e-6, MENDED


def devices(_world: World) -> tuple[str, str]:
    """Where `with torch.device("meta")` makes a tensor: (with the cure, without)."""
    import torch
    import torch.utils._device as torch_device

    def made() -> str:
        with torch.device("meta"):
            return str(torch.empty(3).device)

    right = made()
    torch_device._device_constructors.cache_clear()  # the cure was to fill this cache before factories were wrapped
    return right, made()


def test_meta_device_reaches_wrapped_factories() -> None:
    """Else transformers' from_pretrained leaves buffers like inv_freq as they lay in memory: all weights right, all logits wrong."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("factories are wrapped only where CUDA is not")
    right, wrong = run_ranks(1, devices)[0]
    assert right == "meta"
    assert wrong == "cpu", MENDED


def one_generator() -> AbstractContextManager[Any]:
    """Attention drops by the generator that tensor-parallel ranks share, as everything that they compute twice must."""
    from types import SimpleNamespace

    from cpt.engine import attention

    return mock.patch.object(attention, "get_cuda_rng_tracker", lambda: SimpleNamespace(fork=nullcontext))


def dropped(config: RunConfig) -> Any:
    """What core attention gives for the same queries, keys and values on every rank."""
    import torch
    from megatron.core.transformer.enums import AttnMaskType

    from cpt.engine.attention import PLAIN, CoreAttention, ForwardPlan
    from cpt.engine.model import transformer_config

    settings = transformer_config(config.model, config.parallel, config.train.precision, ForwardPlan(attention_dropout=0.5))
    attention = CoreAttention(settings, 1, AttnMaskType.causal, "self", PLAIN.kernel).train()
    q, k, v = torch.randn(3, 16, 1, 4, 8, generator=torch.Generator().manual_seed(0))
    return attention(q, k, v, None).numpy()


def test_heads_of_other_ranks_drop_other_weights() -> None:
    """Else tensor-parallel ranks, which hold different heads, would all forget the same places."""
    (right, wrong), (other, as_wrong) = run_ranks(2, with_and_without, [*TP2, "parallel.sequence_parallel=false"], one_generator, dropped)
    assert not np.array_equal(right, other)
    assert np.array_equal(wrong, as_wrong), MENDED


def masters(world: World) -> list[tuple[bool, bool]]:
    """For each weight after an update in bf16: (is its rounded master, has moved)."""
    import torch

    from cpt import engine

    config = config_of("train.precision=bf16")
    engine.initialize(world, config.parallel, config.seed)
    model = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer)
    before = [parameter.detach().clone() for parameter in model.chunks[0].parameters()]
    model.train_step(batch(config), 1, 1e-2)
    (part,) = model.optimizer.chained_optimizers
    return [
        (torch.equal(parameter.flatten(), part._get_main_param_and_optimizer_states(parameter)["param"].bfloat16()), not torch.equal(parameter, old))
        for parameter, old in zip(model.chunks[0].parameters(), before, strict=True)
    ]


def test_bf16_weights_follow_their_masters() -> None:
    """fp32 masters are the weights themselves and are copied nowhere; in bf16 a run without that copy would train what nobody computes with."""
    assert all(rounded and moved for rounded, moved in run_ranks(1, masters)[0])
