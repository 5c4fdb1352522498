"""Looking at held-out text drops nothing and changes nothing, whatever dropout training has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cpt.core.world import World
from tests.engine.test_traps import batch, config_of
from tests.ranks import run_ranks

pytestmark = pytest.mark.engine


def evaluated(_world: World) -> tuple[list[Any], bool]:
    """Token losses before and between updates with much dropout, those without any; and whether evaluation left the generators alone."""
    import torch

    from cpt import engine
    from cpt.engine.attention import PLAIN, ForwardPlan

    config = config_of()
    engine.initialize(_world, config.parallel, config.seed)
    tokens, found = batch(config), []
    for forward in (PLAIN, ForwardPlan(attention_dropout=0.5, hidden_dropout=0.5)):
        model = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer, forward)
        weights = torch.Generator().manual_seed(0)
        for parameter in model.chunks[0].parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=weights)
        model.weights_changed()
        found.append(model.token_losses(tokens))
    model.compute_gradients(tokens, 1)
    state = torch.get_rng_state()
    found.append(model.token_losses(tokens))
    return found, bool(torch.equal(state, torch.get_rng_state()))


def test_evaluation_drops_nothing_and_draws_nothing() -> None:
    """Else losses of held-out text would be too high, and training would go on otherwise for having been looked at."""
    (plain, before, between), untouched = run_ranks(1, evaluated)[0]
    np.testing.assert_array_equal(before, plain)
    np.testing.assert_array_equal(between, plain)
    assert untouched
