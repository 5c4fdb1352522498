"""Every family answers as transformers does, in every layout, and gives every tensor back unchanged: the parity table.

`pytest -s tests/convert/test_families.py` prints it. One spawn a layout computes all families, over random weights that transformers made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpt.config.run import RunConfig
from cpt.core.world import World
from tests.convert.families import FAMILIES, LAYOUTS, overrides
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
    for layout, (tensor, pipeline) in LAYOUTS.items():
        configs = {family: tiny_config(bases, *overrides(family, layout)) for family in FAMILIES}
        found[layout] = run_ranks(tensor * pipeline, _measure, configs)[0]
        print(f"\n{layout:10}", *(f"{family} {row['logits']:.1e}" for family, row in found[layout].items()))
    return found


def _measure(world: World, configs: dict[str, RunConfig]) -> dict[str, dict[str, Any]]:
    """By family: largest logit difference over the largest logit; grad norm of one step on the reference text."""
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
        step = built.train_step(reference.tokens[:, :65].numpy(), 1, 0.0)
        found[family] = {"logits": difference, "grad_norm": step.grad_norm, "layout": built.describe()}
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_those_of_transformers(layout: str, family: str, measured: dict[str, dict[str, dict[str, Any]]]) -> None:
    found = measured[layout][family]
    assert found["layout"].startswith(layout)
    assert found["logits"] <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_do_not_depend_on_the_layout(family: str, measured: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Logits alone would miss a bias or a query norm whose gradient is not added up over tensor-parallel ranks; that is off by percents, rounding by 1e-5."""
    norms = [measured[layout][family]["grad_norm"] for layout in LAYOUTS]
    assert norms == pytest.approx([norms[0]] * len(norms), rel=1e-4)


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
