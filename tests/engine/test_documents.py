"""A row of documents is its documents one by one: logits and gradients, with positions that restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import tiny_config

pytestmark = pytest.mark.engine

END = 7
ENDS = [9, 10, 29, 47]
"""Positions of end-of-document tokens in a row of 64: documents of 10, 1, 19, 18 and 16 tokens."""


def compare(world: World, root: Path) -> dict[str, Any]:
    """Largest differences, relative to the largest value, between a row and its documents; and how much a first document is seen by the last."""
    import torch

    from cpt import engine
    from cpt.convert import BaseFolder, import_weights
    from cpt.engine.attention import ForwardPlan
    from cpt.engine.segments import documents

    config = tiny_config(root, "train.precision=fp32")
    engine.initialize(world, config.parallel, config.seed)
    model = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer, ForwardPlan(end_of_document=END))
    import_weights(model.chunks, config.model, BaseFolder(config.runs.base("tiny")))
    module: Any = model.modules[0]  # whose gradient buffer every product is added to
    row = torch.randint(END + 1, config.model.vocab_size, (1, 64), generator=torch.Generator().manual_seed(1))
    row[0, ENDS] = END

    angles: list[float] = []
    model.chunks[0].decoder.register_forward_pre_hook(lambda _, args, kwargs: angles.append(float(kwargs["rotary_pos_emb"].max())), with_kwargs=True)

    def run(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits [s, v], gradient of the sum of squared logits, all weights in one vector)."""
        module.zero_grad_buffer()
        out = module(tokens, torch.arange(tokens.shape[1])[None], None, packed_seq_params=documents(tokens, END, 0, 1))
        (out**2).sum().backward()
        return out.detach()[0], torch.cat([weight.main_grad.flatten().clone() for weight in module.parameters()])

    whole, gradient = run(row)
    angle = angles[0]
    parts = [run(part) for part in row.tensor_split([end + 1 for end in ENDS], dim=1)]
    other = row.clone()
    other[0, :9] = END + 1
    changed, _ = run(other)
    apart, apart_gradient = torch.cat([logits for logits, _ in parts]), torch.stack([gradient for _, gradient in parts]).sum(0)
    return {
        "angle": angle,
        "logits": float((whole - apart).abs().max() / apart.abs().max()),
        "gradient": float((gradient - apart_gradient).norm() / apart_gradient.norm()),
        "seen": float((changed - whole)[10:].abs().max()),
        "own": float((changed - whole)[:10].abs().max()),
        "engine": float((model.logits(row.numpy())[0] - whole).abs().max()),
    }


@pytest.fixture(scope="module")
def found(root: Path) -> dict[str, Any]:
    result: dict[str, Any] = run_ranks(1, compare, root)[0]
    return result


def test_logits_and_gradients_are_those_of_separate_documents(found: dict[str, Any]) -> None:
    assert found["logits"] <= 1e-6
    assert found["gradient"] <= 1e-6
    assert found["engine"] == 0


def test_no_token_sees_another_document(found: dict[str, Any]) -> None:
    assert found["seen"] == 0
    assert found["own"] > 1e-3


def test_angles_restart_with_documents(found: dict[str, Any]) -> None:
    """Rotation is relative: no logit of a short row shows it. The fastest channel turns one radian a position; the longest document has 19 tokens."""
    assert found["angle"] == 18


def test_positions_restart_on_every_rank() -> None:
    import torch

    import cpt.engine  # noqa: F401
    from cpt.engine.context import order
    from cpt.engine.segments import documents

    tokens = torch.ones(2, 16, dtype=torch.long)
    tokens[0, [3, 8]] = END
    expected = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6], range(16)])
    for rank in range(2):
        found = documents(tokens, END, rank, 2)
        assert found.positions is not None and found.segments is not None
        np.testing.assert_array_equal(found.positions, expected[:, order(16, 2)[rank]])
        assert sum(queries for queries, _ in found.segments.lengths) == 16, "each of this rank's tokens asks once"
