"""Every family answers as transformers does, in every layout, and gives every tensor back unchanged: the parity table.

`pytest -s tests/convert/test_families.py` prints it. One spawn a layout computes all families, over random weights that transformers made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from cpt.config.run import RunConfig
from cpt.core.world import World
from tests.convert.families import FAMILIES, LAYOUTS, families_of, overrides, ranks_of
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the base and the reference answers of each family."""
    root = tmp_path_factory.mktemp("families")
    run_ranks(1, _make_bases, [tiny_config(root, *overrides(family)) for family in FAMILIES])
    return root


def _make_bases(_world: World, configs: list[RunConfig]) -> None:
    from cpt.convert.base import obtain_base
    from cpt.convert.parity import make_reference

    for config in configs:
        make_reference(obtain_base(config.model, config.runs.base(config.model.name)))


@pytest.fixture(scope="module")
def measured(bases: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Layout -> family -> what rank 0 found."""
    found = {}
    for layout in LAYOUTS:
        configs = {family: tiny_config(bases, *overrides(family, layout)) for family in families_of(layout)}
        found[layout] = run_ranks(ranks_of(layout), _measure, configs)[0]
    print("\n\n|", " | ".join(["largest logit difference", *LAYOUTS]), "|\n|", "--- | " * (1 + len(LAYOUTS)))
    for family in FAMILIES:
        print("|", " | ".join([family, *(f"{found[layout][family]['logits']:.1e}" if family in found[layout] else "" for layout in LAYOUTS)]), "|")
    return found


def _measure(world: World, configs: dict[str, RunConfig]) -> dict[str, dict[str, Any]]:
    """By family: largest logit difference over the largest logit; tensors that do not come back from a checkpoint; loss and gradient norm of one step."""
    import torch

    from cpt import engine
    from cpt.config.training import Precision
    from cpt.convert import BaseFolder, import_weights
    from cpt.convert.parity import read_reference, relative_difference

    first = next(iter(configs.values()))
    engine.initialize(world, first.parallel, first.seed)
    found = {}
    for family, config in configs.items():
        folder = config.runs.base(family)
        BaseFolder(folder).check(config.model)
        built = engine.Engine(config.model, config.parallel, Precision.fp32, config.optimizer)
        import_weights(built.chunks, config.model, BaseFolder(folder))
        built.weights_changed()
        reference = read_reference(folder)
        with torch.no_grad():
            difference = relative_difference(built.logits(reference.tokens.numpy()), reference.logits)
        rows = reference.tokens[:, :65].repeat(2, 1).numpy()  # an interleaved pipeline needs as many micro-batches as stages
        mine = built.rows(len(rows))
        step = built.train_step(rows[mine.start : mine.stop], 1, 0.0)  # at rate 0: the weights stay, the optimizer has something to save
        changed = _round_trip(built, config, folder)
        found[family] = {"logits": difference, "changed": changed, "loss": step.loss, "grad_norm": step.grad_norm, "layout": built.describe()}
    return found


def _round_trip(built: Any, config: RunConfig, base: Path) -> list[str]:
    """Base -> engine -> checkpoint -> Hugging Face folder: names of tensors that are not the base's bit for bit."""
    import torch
    import torch.distributed as dist

    from cpt.checkpoint import CheckpointStore
    from cpt.checkpoint.reader import CheckpointReader
    from cpt.convert import BaseFolder
    from cpt.export.shards import write_shards
    from cpt.train.saving import Saver
    from cpt.train.state import TrainState
    from cpt.train.streamed import from_checkpoint

    layout = built.describe().replace(" ", "")
    store = CheckpointStore(base.parent / f"{base.name}-{layout}")
    Saver(built, store, Mock(), asynchronous=False).save(TrainState(step=1), lambda *_: None)
    if dist.get_rank():
        return []
    out = base.parent / f"{base.name}-{layout}-exported"
    out.mkdir()
    write_shards(from_checkpoint(CheckpointReader(store.check(1)), torch.float32), config.model, out, shard_bytes=200_000)
    before, after = BaseFolder(base), BaseFolder(out)
    assert len({stored.file for stored in after.tensors.values()}) > 1
    return [name for name in before.tensors.keys() | after.tensors.keys() if not torch.equal(before.slice(name), after.slice(name))]


@pytest.mark.parametrize(("layout", "family"), [(layout, family) for layout in LAYOUTS for family in families_of(layout)])
def test_logits_are_those_of_transformers_and_tensors_come_back(layout: str, family: str, measured: dict[str, dict[str, dict[str, Any]]]) -> None:
    found = measured[layout][family]
    assert set(layout.split(" x ")) <= set(found["layout"].split(" x "))
    assert found["logits"] <= 1e-5
    assert found["changed"] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_loss_and_gradient_norm_in_every_layout(family: str, measured: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Logits alone would miss a bias or a query norm whose gradient is not added up over tensor-parallel ranks (off by percents), and the padded
    row that a vocabulary of 2049 gets with TP2: were it in the softmax, the loss would be off by 6e-5, the norm by 1e-5."""
    steps = [(measured[layout][family]["loss"], measured[layout][family]["grad_norm"]) for layout in LAYOUTS if family in measured[layout]]
    np.testing.assert_allclose(steps, [steps[0]] * len(steps), rtol=1e-6)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "deepseek_v2"])
def test_rotary_frequencies_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """Bit for bit: megatron-core's own would be wrong for a base that is no whole number, and for all scaling but Llama 3.1's."""
    ours, theirs = run_ranks(1, _frequencies, tiny_config(tmp_path, *overrides(family)))[0]
    assert ours == theirs


def _frequencies(_world: World, config: RunConfig) -> tuple[list[float], list[float]]:
    import torch
    from transformers import AutoModelForCausalLM

    from cpt.convert.settings import transformers_config
    from cpt.engine.rope import inverse_frequencies

    theirs = AutoModelForCausalLM.from_config(transformers_config(config.model)).model.rotary_emb.inv_freq
    return inverse_frequencies(config.model, torch.device("cpu")).tolist(), theirs.tolist()
