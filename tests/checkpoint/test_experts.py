"""Experts and latent attention in checkpoints: spread in one way, read in every other. Keys count experts over the whole model.

weight.decoder.layers.1.mlp.experts.experts.linear_fc1.weight      [experts, 2 * width, hidden]
weight.decoder.layers.1.mlp.shared_experts.linear_fc1.weight       [2 * width of all shared, hidden]
weight.decoder.layers.1.mlp.router.weight, .self_attention.kv_layernorm.weight
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine

TP2 = ["parallel.tensor_parallel_size=2", "parallel.sequence_parallel=true"]
WRITER = (4, [*TP2, "parallel.expert_parallel_size=2"])
"""TP2 x DP2, each expert on two ranks."""
READERS = {
    "one rank": (1, []),
    "EP4": (4, ["parallel.expert_parallel_size=4"]),
    "TP2 x PP2 x EP2": (4, [*TP2, "parallel.pipeline_parallel_size=2", "parallel.expert_parallel_size=2"]),
}


def train(world: World, folder: Path, overrides: list[str], save: bool) -> list[tuple[float, float]]:
    """(loss, gradient norm) of the third and the fourth update; the writer saves after the second, a reader begins there."""
    from cpt import engine
    from cpt.checkpoint import CheckpointStore, state
    from cpt.train.saving import Saver
    from cpt.train.state import TrainState
    from tests.checkpoint.test_layouts import _Silent

    config = tiny_config(folder, "model=tiny_moe", "train.precision=fp32", f"slurm.tasks_per_node={world.world_size}", *overrides)
    engine.initialize(world, config.parallel, 1 if save else 2)
    model, store = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer), CheckpointStore(folder)
    tokens = np.random.default_rng(0).integers(0, config.model.vocab_size, (4, 8, 33))
    rows = model.rows(8)
    mine = tokens[:, rows.start : rows.stop]
    if save:
        for batch in mine[:2]:
            model.train_step(batch, 1, 1e-3)
        Saver(model, store, _Silent(), asynchronous=False).save(TrainState(step=2), lambda *_: None)  # type: ignore[arg-type]
    else:
        state.load(store.check(2), model.chunks, model.optimizer, store.record(2).optimizer_step)
    return [(result.loss, result.grad_norm) for result in (model.train_step(batch, 1, 1e-3) for batch in mine[2:])]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, float]]]:
    """Where the writer saved, and how it went on."""
    folder = tmp_path_factory.mktemp("experts")
    return folder, run_ranks(WRITER[0], train, folder, WRITER[1], True)[0]


def test_exact_resume_on_the_same_layout(written: tuple[Path, list[tuple[float, float]]]) -> None:
    folder, expected = written
    assert run_ranks(WRITER[0], train, folder, WRITER[1], False)[0] == expected


@pytest.mark.parametrize("layout", READERS)
def test_other_layouts_go_on_to_rounding(layout: str, written: tuple[Path, list[tuple[float, float]]]) -> None:
    folder, expected = written
    size, overrides = READERS[layout]
    np.testing.assert_allclose(run_ranks(size, train, folder, overrides, False)[0], expected, rtol=1e-6)


def test_each_value_is_written_once(written: tuple[Path, list[tuple[float, float]]]) -> None:
    shapes, values = run_ranks(1, _read, written[0])[0]
    model = tiny_config(written[0], "model=tiny_moe").model
    assert shapes["weight.decoder.layers.3.mlp.experts.experts.linear_fc1.weight"] == (8, 48, 64)
    assert shapes["weight.decoder.layers.1.self_attention.linear_kv_down_proj.weight"] == (32, 64)
    assert values == 3 * model.parameters, "master weight and two moments"


def _read(_world: World, folder: Path) -> tuple[dict[str, tuple[int, ...]], int]:
    from safetensors import safe_open

    from cpt.checkpoint import CheckpointStore
    from cpt.checkpoint.reader import CheckpointReader

    reader = CheckpointReader(CheckpointStore(folder).path(2))
    values = 0
    for path in sorted(reader.folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            values += sum(file.get_tensor(key).numel() for key in file.keys() if not key.startswith("rng."))  # noqa: SIM118 - no mapping
    return {name: reader.shape(name) for name in reader.names()}, values
