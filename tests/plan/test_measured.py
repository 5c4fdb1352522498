"""The planner's bytes against those of a real engine: tensors saved for the backward pass, and checkpoints on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.model import ModelConfig
from cpt.config.parallel import ParallelConfig, Recompute, RecomputeModule
from cpt.config.training import Precision
from cpt.plan.memory import checkpoint_bytes, layer_activations, stage_activations
from cpt.plan.workload import workload

TOKENS = 256
FORMAT = 0.05
"""A small model's checkpoint is so much more than its numbers; the share falls with size."""
MODEL = {
    "name": "probe",
    "hidden_size": 128,
    "ffn_hidden_size": 448,
    "num_attention_heads": 8,
    "num_query_groups": 2,
    "kv_channels": 16,
    "vocab_size": 256,
    "max_position_embeddings": 512,
}
PROBE = """
import json, sys
from cpt.engine import cpu
cpu.install()
import torch
from cpt.config.model import ModelConfig
import numpy
from cpt.checkpoint import state, writer
from cpt.config.parallel import ParallelConfig, Recompute, RecomputeModule
from cpt.config.training import OptimizerConfig, Precision
from cpt.core.world import World
from cpt.engine.engine import Engine
from cpt.engine.parallel import initialize

def saved(layers, precision, **recompute):
    engine = Engine(ModelConfig(num_layers=layers, **model), ParallelConfig(**recompute), precision)
    engine.modules[0].train()
    weights = {weight.untyped_storage().data_ptr() for weight in engine.chunks[0].parameters()}
    found = {}
    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage
        return tensor
    tokens = torch.zeros(1, length, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = engine.modules[0](tokens, torch.arange(length)[None], None, labels=tokens)
    return sum(storage.nbytes() for storage in found.values())

model, length = json.loads(sys.argv[1]), int(sys.argv[2])
def on_disk(precision):
    config = ModelConfig(num_layers=2, **model)
    engine = Engine(config, ParallelConfig(), precision, OptimizerConfig())
    engine.train_step(numpy.zeros((1, 9), dtype=numpy.int64), 1, 1e-4)
    return writer.Staging().stage(state.collect(engine.chunks, engine.optimizer, 0), 0, 1).bytes / config.parameters

initialize(World(), ParallelConfig(), 1)
choices = {str(r): dict(recompute=r) for r in Recompute}
choices["mlp"] = dict(recompute=Recompute.selective, recompute_modules=[RecomputeModule.mlp])
choices["first layer"] = dict(recompute=Recompute.full, recompute_layers=1)
layer = lambda precision, choice: (saved(3, precision, **choice) - saved(1, precision, **choice)) / 2 / length
result = {f"{p}.checkpoint": on_disk(p) for p in Precision} | {f"{p}.{name}": layer(p, choice) for p in Precision for name, choice in choices.items()}
print("RESULT", json.dumps(result))
"""


@pytest.fixture(scope="module")
def measured(repository: Path) -> dict[str, float]:
    """Bytes per token and layer, by `<precision>.<recompute>`; bytes per parameter, by `<precision>.checkpoint`."""
    command = [sys.executable, "-c", PROBE, json.dumps(MODEL), str(TOKENS)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found: dict[str, float] = json.loads(ended.stdout.split("RESULT ")[1])
    return found


@pytest.mark.engine
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("recompute", [Recompute.none, Recompute.selective])
def test_layer_activations_are_what_a_layer_saves(measured: dict[str, float], precision: Precision, recompute: Recompute) -> None:
    planned = layer_activations(ModelConfig(num_layers=1, **MODEL), ParallelConfig(recompute=recompute), precision)  # type: ignore[arg-type]
    assert planned == pytest.approx(measured[f"{precision}.{recompute}"], rel=0.01)


@pytest.mark.engine
@pytest.mark.parametrize("precision", list(Precision))
def test_layer_activations_without_those_of_the_mlp(measured: dict[str, float], precision: Precision) -> None:
    parallel = ParallelConfig(recompute=Recompute.selective, recompute_modules=[RecomputeModule.mlp])
    planned = layer_activations(ModelConfig(num_layers=1, **MODEL), parallel, precision)  # type: ignore[arg-type]
    assert planned == pytest.approx(measured[f"{precision}.mlp"], rel=0.01)


@pytest.mark.engine
@pytest.mark.parametrize("precision", list(Precision))
def test_layers_behind_the_recomputed_ones_are_kept_whole(measured: dict[str, float], precision: Precision) -> None:
    assert measured[f"{precision}.first layer"] == measured[f"{precision}.none"]
    run = compose_config(["experiment=ellama_70b", "parallel.recompute=full", "parallel.recompute_layers=5", f"train.precision={precision}"])
    whole = layer_activations(run.model, run.parallel, precision)
    inputs = run.model.hidden_size * (2 if precision is Precision.bf16 else 4) // run.parallel.tensor_parallel_size  # sequence parallel
    assert stage_activations(workload(run), 1, 0) == 15 * whole + 5 * inputs + whole, "20 layers a stage, one computed again at a time"


@pytest.mark.engine
@pytest.mark.parametrize("precision", list(Precision))
def test_full_recompute_keeps_the_input_alone(measured: dict[str, float], precision: Precision) -> None:
    assert measured[f"{precision}.full"] == 128 * (2 if precision is Precision.bf16 else 4)


@pytest.mark.engine
@pytest.mark.parametrize("precision", list(Precision))
def test_checkpoint_bytes_are_what_lies_on_disk(measured: dict[str, float], precision: Precision) -> None:
    run = compose_config(["experiment=demo", f"train.precision={precision}"])
    assert measured[f"{precision}.checkpoint"] == pytest.approx(checkpoint_bytes(run.model) / run.model.parameters, rel=FORMAT)
