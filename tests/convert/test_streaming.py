"""One layer in memory at a time gives what the whole model gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.core.world import World
from tests.convert.families import overrides
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine

DIFFERENT = ["llama", "qwen2", "qwen3", "deepseek_v2"]
"""Tied, biases, norms inside attention, experts that transformers stacks."""


@pytest.mark.parametrize("family", DIFFERENT)
def test_streamed_and_whole_answer_alike(family: str, tmp_path: Path) -> None:
    assert run_ranks(1, _both, tmp_path, family) == [(True, True, True)]


def _both(world: World, root: Path, family: str) -> tuple[bool, bool, bool]:
    """transformers bit for bit; the engine bit for bit; nothing is left of the weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from cpt import engine
    from cpt.config.training import Precision
    from cpt.convert import BaseFolder, import_weights
    from cpt.convert.base import obtain_base
    from cpt.convert.parity import transformers_logits
    from cpt.convert.streaming import stream, without_weights
    from cpt.train.streamed import engine_logits, from_folder

    config = tiny_config(root, *overrides(family))
    folder = obtain_base(config.model, config.runs.base(family))
    tokens = torch.arange(7, 47)[None]
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        theirs = torch.equal(transformers_logits(folder, tokens), whole(tokens).logits)
        streamed = engine_logits(config.model, from_folder(BaseFolder(folder), config.model), tokens)
        engine.initialize(world, config.parallel, config.seed)
        built = engine.Engine(config.model, config.parallel, Precision.fp32)
        import_weights(built.chunks, config.model, BaseFolder(folder))
        ours = torch.equal(streamed, built.logits(tokens.numpy()))
        with without_weights():
            empty = AutoModelForCausalLM.from_config(whole.config).eval()
        stream(empty, lambda name: whole.get_parameter(name).detach(), torch.device("cpu"))
        empty(tokens)
    return theirs, ours, all(parameter.is_meta for parameter in empty.parameters())
