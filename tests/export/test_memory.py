"""Peak memory of what must never hold a whole model, each in a process of its own: `pytest -m slow -s tests/export/test_memory.py` prints the table."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from cpt.config.run import RunConfig
from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SHAPE = ["model.name=deep", "model.num_layers=24", "model.hidden_size=512", "model.ffn_hidden_size=2048", "model.kv_channels=64", "model.num_query_groups=8"]
TP2_PP2 = ["slurm.tasks_per_node=4", "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2"]


def test_peaks_are_far_below_the_model(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, *SHAPE, "train.precision=fp32", "export.shard_bytes=40000000")
    cut = tiny_config(tmp_path, *SHAPE, "train.precision=fp32", *TP2_PP2)
    run_ranks(1, _prepare, config)
    whole = 4 * config.model.parameters
    peaks = {what.__name__: run_ranks(1, what, config)[0] for what in (reference, engine_check, export, transformers_check)}
    peaks["import_tp2_pp2"] = max(run_ranks(4, import_tp2_pp2, cut))
    print(f"\nmodel {whole / 2**20:.0f} MiB fp32;", *(f"{what} {peak / 2**20:.0f} MiB" for what, peak in peaks.items()), sep="  ")
    assert max(peak for what, peak in peaks.items() if what != "import_tp2_pp2") < whole / 3
    assert peaks["import_tp2_pp2"] < whole / 2


def _peak(work: Callable[[], Any]) -> int:
    """Bytes that this process held at most beyond what it held before; file pages that the system may take back count too."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) * 1024


def _base(config: RunConfig) -> Path:
    return config.runs.base("deep")


def _read(config: RunConfig) -> Any:
    import torch

    from cpt.checkpoint import CheckpointStore
    from cpt.checkpoint.reader import CheckpointReader
    from cpt.train.streamed import from_checkpoint

    return from_checkpoint(CheckpointReader(CheckpointStore(_base(config).parent / "checkpoints").check(1)), torch.float32)


def _prepare(world: World, config: RunConfig) -> None:
    from cpt import engine
    from cpt.checkpoint import CheckpointStore
    from cpt.convert import BaseFolder, import_weights
    from cpt.convert.base import obtain_base
    from cpt.train.saving import Saver
    from cpt.train.state import TrainState

    folder = obtain_base(config.model, _base(config))
    engine.initialize(world, config.parallel, config.seed)
    built = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer)
    import_weights(built.chunks, config.model, BaseFolder(folder))
    built.weights_changed()
    Saver(built, CheckpointStore(folder.parent / "checkpoints"), Mock(), asynchronous=False).save(TrainState(step=1), lambda *_: None)


def reference(_world: World, config: RunConfig) -> int:
    from cpt.convert.parity import make_reference

    return _peak(lambda: make_reference(_base(config)))


def engine_check(_world: World, config: RunConfig) -> int:
    from cpt.convert import BaseFolder
    from cpt.convert.parity import read_reference
    from cpt.train.streamed import engine_logits, from_folder

    base = BaseFolder(_base(config))
    return _peak(lambda: engine_logits(config.model, from_folder(base, config.model), read_reference(base.path).tokens))


def export(_world: World, config: RunConfig) -> int:
    from cpt.export.shards import write_shards

    out = _base(config).parent / "out"
    out.mkdir()
    return _peak(lambda: write_shards(_read(config), config.model, out, config.export.shard_bytes))


def transformers_check(_world: World, config: RunConfig) -> int:
    import shutil

    from cpt.convert.parity import read_reference, transformers_logits

    shutil.copy(_base(config) / "config.json", _base(config).parent / "out")
    return _peak(lambda: transformers_logits(_base(config).parent / "out", read_reference(_base(config)).tokens))


def import_tp2_pp2(world: World, config: RunConfig) -> int:
    from cpt import engine
    from cpt.config.training import Precision
    from cpt.convert import BaseFolder, import_weights

    engine.initialize(world, config.parallel, config.seed)
    return _peak(lambda: import_weights(engine.Engine(config.model, config.parallel, Precision.fp32).chunks, config.model, BaseFolder(_base(config))))
