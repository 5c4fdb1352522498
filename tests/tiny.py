"""A tiny random Llama and the committed samples, prepared once per test session; and run directories over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.config.seal import read_config, to_yaml
from cpt.core.artifacts import write_text
from cpt.core.paths import RunPaths
from cpt.core.records import RunRecord
from cpt.core.world import World

SETTINGS = [
    "model=tiny",
    "corpus=sample",
    "cluster=local",
    "train.sequence_length=64",
    "train.global_batch_size=8",
    "train.train_tokens=10240",
    "evaluate.heldout_sequences=2",
    "checkpoint.interval=5",
]
"""20 steps of 8 x 64 tokens."""

TP2_PP2_DP2 = [
    "slurm.tasks_per_node=8",
    "parallel.tensor_parallel_size=2",
    "parallel.pipeline_parallel_size=2",
    "parallel.sequence_parallel=true",
    "parallel.recompute=full",
    "parallel.overlap_grad_reduce=true",
    "parallel.overlap_param_gather=true",
]


def tiny_config(root: Path, *overrides: str) -> RunConfig:
    """Of the tiny Llama, unless the overrides name another model."""
    settings = SETTINGS[1:] if any(override.startswith("model=") for override in overrides) else SETTINGS
    return compose_config([*settings, f"run_root={root}", *overrides])


def make_root(root: Path) -> Path:
    """Base and corpus below `root`. Imports transformers: call it in a fork."""
    from cpt.corpus.prepare import prepare
    from cpt.train.base import prepare_base

    config = tiny_config(root)
    prepare_base(config)
    prepare(config, lambda *_: None)
    return root


def make_experts(root: Path) -> None:
    """The base of the tiny model with experts below `root`. Imports transformers: call it in a fork."""
    from cpt.train.base import prepare_base

    prepare_base(tiny_config(root, "model=tiny_moe"))


def make_run(root: Path, name: str, overrides: Sequence[str]) -> RunPaths:
    """A run directory as `cpt launch` would write it, under a name of the test's own."""
    from cpt.data import open_manifest
    from cpt.mix import plan_mixture

    config = tiny_config(root, *overrides)
    train = config.train
    mixture = plan_mixture(config.mixture, open_manifest(config), train.train_tokens, train.sequence_length)
    run = RunPaths(root / name)
    RunRecord(name=name, fingerprint="test", created="", command=[], versions={}, mixture=mixture).save(run.run)
    write_text(run.config, to_yaml(config))
    return run


def train_rank(world: World, run: RunPaths, attempt: int) -> int:
    """One rank's attempt, as `cpt train --run` makes it."""
    from cpt.train import train_run

    return train_run(run, read_config(run.config), world, attempt)


def weights_of(world: World, run: RunPaths) -> dict[str, Any]:
    """All weights of the newest checkpoint, as numpy."""
    from cpt.train import open_session

    session = open_session(read_config(run.config), run, "latest")
    return {name: tensor.float().numpy() for name, tensor in session.engine.chunks[0].state_dict().items() if hasattr(tensor, "float")}
