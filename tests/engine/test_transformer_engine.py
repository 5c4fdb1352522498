"""Transformer Engine's layers have the norm inside the matrix that follows it, under another name: weights must still find their place.

The package cannot be had without a GPU. A stand-in has its layers' parameter names, as megatron-core 0.19.2 and Transformer Engine 2 have them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cpt.core.world import World
from tests.convert.families import overrides
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine


def layers_with_norms_inside(qk_layernorm: bool) -> Any:
    """What get_gpt_layer_with_transformer_engine_spec gives, made of torch: no norms of the layer's own, two norms inside matrices."""
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.tensor_parallel import ColumnParallelLinear
    from megatron.core.transformer.identity_op import IdentityOp
    from megatron.core.transformer.spec_utils import ModuleSpec
    from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint

    from cpt.engine.attention import CoreAttention
    from cpt.engine.kernels import SDPA
    from cpt.engine.norm import RMSNorm

    class LayerNormLinear(ColumnParallelLinear):
        def __init__(self, input_size: int, output_size: int, *, config: Any, **rest: Any) -> None:
            super().__init__(input_size, output_size, config=config, **rest)
            self.norm = [RMSNorm(config, input_size, config.layernorm_epsilon)]  # in a list: no module, and so no name of its own
            self.layer_norm_weight = self.norm[0].weight

        def forward(self, x: Any, *arguments: Any, **rest: Any) -> Any:
            return super().forward(self.norm[0](x), *arguments, **rest)

        def sharded_state_dict(self, prefix: str = "", sharded_offsets: Any = (), metadata: Any = None) -> Any:
            return make_sharded_tensors_for_checkpoint(self.state_dict(prefix="", keep_vars=True), prefix, {"weight": 0, "bias": 0}, sharded_offsets)

    spec = get_gpt_layer_local_spec(qk_layernorm=qk_layernorm, normalization="RMSNorm")
    spec.submodules.input_layernorm = spec.submodules.pre_mlp_layernorm = IdentityOp
    spec.submodules.sharded_state_dict_keys_map = {}
    attention = spec.submodules.self_attention.submodules
    attention.linear_qkv, attention.core_attention = LayerNormLinear, ModuleSpec(module=CoreAttention, params={"kernel": SDPA})
    if qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = RMSNorm
    spec.submodules.mlp.keywords["submodules"].linear_fc1 = LayerNormLinear
    return spec


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_names_of_fused_norms_are_known(family: str, tmp_path: Path) -> None:
    """From a base, and through a checkpoint into layers of the other kind."""
    config = tiny_config(tmp_path, *overrides(family))
    run_ranks(1, _make_base, config)
    for found in run_ranks(2, _measure, tiny_config(tmp_path, *overrides(family, "TP2"))):
        assert found["names"] == {"self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight"}
        assert found["logits"] <= 1e-5
        assert found["from_checkpoint"] == 0.0


def _make_base(_world: World, config: Any) -> None:
    from cpt.convert.base import obtain_base
    from cpt.convert.parity import make_reference

    make_reference(obtain_base(config.model, config.runs.base(config.model.name)))


def _measure(world: World, config: Any) -> dict[str, Any]:
    from megatron.core.extensions import transformer_engine

    from cpt import engine
    from cpt.checkpoint import CheckpointStore, state
    from cpt.config.training import Attention, Precision
    from cpt.convert import BaseFolder, import_weights
    from cpt.convert.parity import read_reference, relative_difference
    from cpt.engine.attention import ForwardPlan
    from cpt.engine.kernels import Kernel
    from cpt.engine.norm import RMSNorm
    from cpt.train.saving import Saver
    from cpt.train.state import TrainState

    engine.initialize(world, config.parallel, config.seed)
    folder = config.runs.base(config.model.name)
    reference = read_reference(folder)
    stand_in = mock.patch("cpt.engine.model.get_gpt_layer_with_transformer_engine_spec", layers_with_norms_inside)
    with stand_in, mock.patch.object(transformer_engine, "TENorm", RMSNorm):
        plan = ForwardPlan(Kernel(Attention.transformer_engine, "stand-in"))
        fused = engine.Engine(config.model, config.parallel, Precision.fp32, config.optimizer, plan)
    import_weights(fused.chunks, config.model, BaseFolder(folder))
    fused.weights_changed()
    logits = fused.logits(reference.tokens.numpy())
    store = CheckpointStore(folder.parent / "fused")
    Saver(fused, store, mock.Mock(), asynchronous=False).save(TrainState(step=1), lambda *_: None)
    plain = engine.Engine(config.model, config.parallel, Precision.fp32)
    state.load_weights(store.path(1), plain.chunks)
    return {
        "names": {name.split(".", 3)[3] for name, _ in fused.chunks[0].named_parameters() if "layer_norm_weight" in name},
        "logits": relative_difference(logits, reference.logits),
        "from_checkpoint": float((plain.logits(reference.tokens.numpy()) - logits).abs().max()),
    }
