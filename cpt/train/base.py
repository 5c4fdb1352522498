"""A base that can be trusted: its folder, its reference answers, and the engine's agreement with them in one process."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cpt import engine
from cpt.config.run import RunConfig
from cpt.config.training import ParallelConfig
from cpt.convert import BaseFolder
from cpt.convert.base import obtain_base
from cpt.convert.parity import make_reference
from cpt.core.errors import Problem, UserError
from cpt.core.records import ParityRecord
from cpt.core.world import World
from cpt.train.gate import measure


def prepare_base(config: RunConfig) -> tuple[Path, ParityRecord]:
    """Obtain, check, compare. Idempotent; raises `UserError` when the base is absent, unsupported, or not reproduced."""
    folder = config.runs.base(config.model.name)
    obtain_base(config.model, folder)
    base = BaseFolder(folder)
    base.check(config.model)
    single = dataclasses.replace(config, parallel=ParallelConfig())
    engine.initialize(World(), single.parallel, config.seed)
    record = measure(single, base, make_reference(folder))
    engine.finalize()
    if not record.passed:
        raise UserError(
            Problem(
                where="model",
                what=f"logits differ by {record.logit_difference:.3g} from the base's, allowed is {record.tolerance:.3g}",
                why="the engine would train another model than this base",
                fix="check the model section against the base's config.json",
            )
        )
    return folder, record
