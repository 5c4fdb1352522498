"""What one layout writes, every layout reads: on the same one bit for bit, on others to rounding. Real megatron over gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from cpt.checkpoint import CheckpointStore
from cpt.config.compose import compose_config
from cpt.core.errors import CptError
from tests.ranks import run_ranks
from tests.tiny import SETTINGS, TP2_PP2_DP2

pytestmark = pytest.mark.engine

TP2 = "parallel.tensor_parallel_size=2"
EP2 = ["model=tiny_moe", "parallel.expert_parallel_size=2", "slurm.tasks_per_node=4"]
LAYOUTS: dict[str, tuple[int, list[str]]] = {
    "single": (1, []),
    "DP3": (3, ["slurm.tasks_per_node=3"]),
    "TP2xDP2": (4, ["slurm.tasks_per_node=4", TP2]),
    "PP2xVP2": (2, ["slurm.tasks_per_node=2", "parallel.pipeline_parallel_size=2", "parallel.virtual_pipeline_size=2"]),
    "TP2xPP2xDP2": (8, TP2_PP2_DP2),
    "CP2xDP2": (4, ["slurm.tasks_per_node=4", "parallel.context_parallel_size=2"]),
}
EXPERTS: dict[str, tuple[int, list[str]]] = {
    "experts, single": (1, ["model=tiny_moe"]),
    "experts, DP4xEP2": (4, EP2),
    "experts, TP2xDP2xEP2": (4, [*EP2, TP2, "parallel.sequence_parallel=true"]),
}
ODD: dict[str, tuple[int, list[str]]] = {
    "odd, single": (1, ["model.vocab_size=2047"]),
    "odd, TP2xDP2": (4, [*LAYOUTS["TP2xDP2"][1], "model.vocab_size=2047"]),
}
"""Two ranks share 2047 rows: one row is there only to divide by two."""
WRITERS = {"DP3": LAYOUTS, "TP2xPP2xDP2": LAYOUTS, "experts, DP4xEP2": EXPERTS}
"""Who writes, and who reads it. DP3 cuts rows in the middle; TP2xPP2xDP2 gathers weights late (overlap_param_gather); experts have replicas of their own."""
TOLERANCE = 1e-6
"""Relative, fp32: other layouts add in another order. What is loaded is equal; measured 4e-8 to 1.3e-7."""
SAVED_AT, STEPS = 2, 5


def steps(world: Any, layout: str, root: Path, save: bool, load: str) -> list[tuple[float, float]]:
    """(loss, gradient norm) of the steps after the save or load."""
    from cpt import engine
    from cpt.checkpoint import state
    from cpt.engine import Engine
    from cpt.train.saving import Saver
    from cpt.train.state import TrainState

    config = compose_config([*SETTINGS, "train.precision=fp32", "train.global_batch_size=12", *(LAYOUTS | EXPERTS | ODD)[layout][1]])
    engine.initialize(world, config.parallel, 1 if save else 2)
    trained = Engine(config.model, config.parallel, config.train.precision, config.optimizer)
    if load:
        store = CheckpointStore(root / load)
        state.load(store.check(SAVED_AT), trained.chunks, trained.optimizer, store.record(SAVED_AT).optimizer_step)
    dice, found = np.random.default_rng(0), []
    for step in range(1, STEPS + 1):
        tokens = dice.integers(0, config.model.vocab_size, (12, 33))
        if load and step <= SAVED_AT:
            continue
        rows = trained.rows(len(tokens))
        result = trained.train_step(tokens[rows.start : rows.stop], 1, 1e-3)
        if step > SAVED_AT:
            found.append((result.loss, result.grad_norm))
        elif step == SAVED_AT:
            saver = Saver(trained, CheckpointStore(root / layout), _Silent(), asynchronous=False)
            saver.save(TrainState(step=step), lambda *_: None)
    return found


class _Silent:
    """Stands for the recorder."""

    def staged(self, *_: Any) -> None: ...

    def saved(self, *_: Any) -> None: ...


@pytest.fixture(scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "TP2xPP2xDP2")) for name in WRITERS])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[tuple[float, float]]]:
    """Where a layout has saved, its name, and how it went on undisturbed."""
    root, name = tmp_path_factory.mktemp("layouts"), request.param
    return root, name, run_ranks(WRITERS[name][name][0], steps, name, root, True, "")[0]


def test_exact_on_the_same_layout_and_equal_to_rounding_on_others(saved: tuple[Path, str, list[tuple[float, float]]]) -> None:
    root, writer, expected = saved
    for reader, (size, _) in WRITERS[writer].items():
        found = run_ranks(size, steps, reader, root, False, writer)[0]
        if reader == writer:
            assert found == expected
        else:
            np.testing.assert_allclose(found, expected, rtol=TOLERANCE, err_msg=f"{writer} -> {reader}")


@pytest.mark.parametrize("writer", ["PP2xVP2", "CP2xDP2"])
def test_chunks_and_shared_rows_are_read_by_one_rank(writer: str, tmp_path: Path) -> None:
    expected = run_ranks(LAYOUTS[writer][0], steps, writer, tmp_path, True, "")[0]
    np.testing.assert_allclose(run_ranks(1, steps, "single", tmp_path, False, writer)[0], expected, rtol=TOLERANCE)


@pytest.mark.parametrize(("writer", "reader"), [("odd, TP2xDP2", "odd, single"), ("odd, single", "odd, TP2xDP2")])
def test_rows_that_only_pad_the_vocabulary_are_added_and_left_out(writer: str, reader: str, tmp_path: Path) -> None:
    expected = run_ranks(ODD[writer][0], steps, writer, tmp_path, True, "")[0]
    np.testing.assert_allclose(run_ranks(ODD[reader][0], steps, reader, tmp_path, False, writer)[0], expected, rtol=TOLERANCE)


def test_a_look_before_the_first_update_changes_nothing() -> None:
    """Moments are made for it, by an update with nothing in it."""
    same, made = run_ranks(1, _looked_at)[0]
    assert same and made == 0


def _looked_at(world: Any) -> tuple[bool, int]:
    import torch

    from cpt import engine
    from cpt.checkpoint import state
    from cpt.engine import Engine

    config = compose_config([*SETTINGS, "train.precision=fp32"])
    engine.initialize(world, config.parallel, 1)
    model = Engine(config.model, config.parallel, config.train.precision, config.optimizer)
    before = [parameter.detach().clone() for parameter in model.chunks[0].parameters()]
    state.collect(model.chunks, model.optimizer, 0)
    return all(map(torch.equal, before, model.chunks[0].parameters())), state.optimizer_step(model.optimizer)


@pytest.mark.parametrize("saved", ["DP3", pytest.param("TP2xPP2xDP2", marks=pytest.mark.slow)], indirect=True)
def test_the_format_is_what_it_says(saved: tuple[Path, str, list[tuple[float, float]]]) -> None:
    """Plain safetensors files; each value of each tensor once; any rectangle can be read in one process."""
    root, writer, _ = saved
    folder = CheckpointStore(root / writer).path(SAVED_AT)
    numbers, bytes_held = run_ranks(1, read_back, folder)[0]
    assert numbers["fc1"] == (4, 2 * 128, 64), "gate and up of all four layers, whatever was cut"
    assert numbers["values"] == 3 * compose_config(SETTINGS).model.parameters, "master weight and two moments, once each"
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) == pytest.approx(bytes_held, rel=0.2)


def read_back(_world: Any, folder: Path) -> tuple[dict[str, Any], int]:
    import torch

    from cpt.checkpoint.reader import CheckpointReader

    reader = CheckpointReader(folder)
    name = "weight.decoder.layers.mlp.linear_fc1.weight"
    whole = reader.read(name)
    assert torch.equal(reader.read(name, (2, 100, 5), (1, 60, 7)), whole[2:3, 100:160, 5:12])
    for outside in ((4, 0, 0), (0, 250, 0)):
        with pytest.raises(CptError, match="asked for"):
            reader.read(name, outside, (1, 60, 7))
    with pytest.raises(CptError, match="no tensor"):
        reader.read("weight.other")
    entries = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            entries |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    held = sum(value.nbytes for value in entries.values())
    values = sum(value.numel() for key, value in entries.items() if not key.startswith("rng."))
    return {"fc1": reader.shape(name), "values": values}, held
