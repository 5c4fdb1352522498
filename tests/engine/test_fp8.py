"""fp8: megatron-core gets what Transformer Engine needs, a device that cannot do it is refused with the reason, training stays near bf16."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from cpt.config.training import Fp8
from cpt.core.errors import UserError
from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import tiny_config

ON = ("train.precision=bf16", "train.attention=transformer_engine")


@pytest.mark.engine
@pytest.mark.parametrize("recipe", [recipe for recipe in Fp8 if recipe is not Fp8.none])
def test_megatron_knows_the_recipe(recipe: Fp8, tmp_path: Any) -> None:
    assert run_ranks(1, _made, tiny_config(tmp_path, *ON, f"train.fp8={recipe}")) == [("hybrid" if recipe is Fp8.tensorwise else "e4m3", recipe.value, False)]


def _made(world: World, config: Any) -> tuple[str, str, bool]:
    from cpt import engine
    from cpt.engine.kernels import SDPA
    from cpt.engine.model import transformer_config
    from cpt.train.attention import forward_plan

    engine.initialize(world, config.parallel, config.seed)
    made = transformer_config(config.model, config.parallel, config.train.precision, forward_plan(config, SDPA, None))
    return str(made.fp8), str(made.fp8_recipe), made.fp8_param


def test_a_device_that_cannot_is_refused_in_transformer_engines_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from cpt.engine.fp8 import check

    package, answers = ModuleType("transformer_engine"), ModuleType("transformer_engine.pytorch")
    answers.is_fp8_available = lambda return_reason: (True, "")  # type: ignore[attr-defined]
    answers.is_mxfp8_available = lambda return_reason: (False, "needs compute capability 10")  # type: ignore[attr-defined]
    package.pytorch = answers  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformer_engine", package)
    check(Fp8.none)
    check(Fp8.tensorwise)
    with pytest.raises(UserError, match="needs compute capability 10"):
        check(Fp8.mxfp8)
    with pytest.raises(UserError, match="too old"):
        check(Fp8.blockwise)


@pytest.mark.gpu
@pytest.mark.engine
def test_losses_stay_near_those_of_bf16(tmp_path: Any) -> None:
    """2% of the loss after three updates: e4m3 keeps 3 bits of each number, sums are fp32."""
    import torch

    from cpt.engine.kernels import resolve

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config = tiny_config(tmp_path, *ON)
    try:
        resolve(config.train.attention, config.train.precision)
    except UserError as error:
        pytest.skip(str(error))
    plain, scaled = (run_ranks(1, _losses, tiny_config(tmp_path, *ON, f"train.fp8={recipe}"))[0] for recipe in (Fp8.none, Fp8.tensorwise))
    assert scaled == pytest.approx(plain, rel=0.02)
    assert scaled != plain


def _losses(world: World, config: Any) -> list[float]:
    import numpy as np

    from cpt import engine
    from cpt.engine.fp8 import check
    from cpt.engine.kernels import resolve
    from cpt.train.attention import forward_plan

    engine.initialize(world, config.parallel, config.seed)
    check(config.train.fp8)
    forward = forward_plan(config, resolve(config.train.attention, config.train.precision), None)
    model = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer, forward)
    rows = np.random.default_rng(0).integers(0, config.model.vocab_size, (4, config.train.sequence_length + 1))
    return [model.train_step(rows, 4, 1e-3).loss for _ in range(3)]
