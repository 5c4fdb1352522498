"""The base's or a checkpoint's weights in one process, for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cpt import engine
from cpt.checkpoint import CheckpointStore, state
from cpt.config.parallel import ParallelConfig
from cpt.config.run import RunConfig
from cpt.config.training import Fp8
from cpt.convert import BaseFolder, import_weights
from cpt.core.errors import MissingInput
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.data import open_manifest
from cpt.engine import Engine
from cpt.engine.attention import ForwardPlan
from cpt.engine.kernels import resolve
from cpt.train.attention import forward_plan


@dataclass(frozen=True)
class Session:
    """Weights that answer. `step` 0 is the base; `source` says which folder they came from."""

    engine: Engine
    step: int
    source: str

    def token_losses(self, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """[n, s + 1] int64 -> [n, s] fp32, nats."""
        return self.engine.token_losses(tokens)

    def logits(self, tokens: np.ndarray[Any, Any]) -> torch.Tensor:
        """[n, s] int64 -> [n, s, v] fp32."""
        return self.engine.logits(tokens)

    def close(self) -> None:
        """Leave the process group, so that another session can be opened."""
        engine.finalize()


def open_session(config: RunConfig, run: RunPaths, weights: str) -> Session:
    """`weights` is `base` or `latest`, in the run's own precision. Raises `MissingInput`."""
    engine.initialize(World(), ParallelConfig(), config.seed)
    loaded = Engine(config.model, ParallelConfig(), config.train.precision, forward=_forward(config))
    if weights == "base":
        folder = BaseFolder(config.runs.base(config.model.name))
        folder.check(config.model)
        import_weights(loaded.chunks, config.model, folder)
        step, source = 0, str(folder.path)
    else:
        store = CheckpointStore(run.checkpoints)
        latest = store.latest()
        if latest is None:
            raise MissingInput(path=run.checkpoints, why="no checkpoint is complete yet", fix=f"cpt status {run.root}")
        step, source = latest, str(store.check(latest))
        state.load_weights(store.path(latest), loaded.chunks)
    return Session(loaded, step, source)


def _forward(config: RunConfig) -> ForwardPlan:
    """As the run attends; never in fp8, whose matrices cannot have any number of rows."""
    kernel = resolve(config.train.attention, config.train.precision)
    return replace(forward_plan(config, kernel, open_manifest(config) if config.train.document_masking else None), fp8=Fp8.none)
