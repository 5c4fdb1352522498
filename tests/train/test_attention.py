"""One attention backend for all ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cpt.config.training import Attention
from cpt.core.errors import UserError
from cpt.core.world import World
from tests.ranks import run_ranks
from tests.tiny import make_run, tiny_config

pytestmark = pytest.mark.engine


def refused(world: World, root: Path) -> str:
    """What a rank says whose node has another version than its neighbor's."""
    from cpt import engine
    from cpt.engine.kernels import SDPA
    from cpt.train import attention

    config = tiny_config(root)
    engine.initialize(world, config.parallel, config.seed)
    attention.resolve = lambda *_: replace(SDPA, name=Attention.flash2, version=f"2.{world.rank}")  # type: ignore[assignment]
    with pytest.raises(UserError) as caught:
        attention.choose_kernel(config, make_run(root, "uneven", []), replace(world, node_name=f"node{world.rank}"))
    return str(caught.value.problems[0].what)


def test_nodes_that_would_attend_differently_are_refused_by_name(root: Path) -> None:
    """Else replicas would round differently, and the job would go at the slowest one's pace."""
    assert run_ranks(2, refused, root) == ["is not the same on all nodes: flash2 2.0 on node0, flash2 2.1 on node1"] * 2
