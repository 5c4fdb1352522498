"""A base that can be trusted: its folder, its reference answers, and the engine's agreement with them in one process."""

from __future__ import annotations

from pathlib import Path

from cpt.config.run import RunConfig
from cpt.convert import BaseFolder
from cpt.convert.base import obtain_base
from cpt.convert.parity import make_reference
from cpt.core.errors import Problem, UserError
from cpt.core.records import ParityRecord
from cpt.train.gate import compare
from cpt.train.streamed import engine_logits, from_folder


def prepare_base(config: RunConfig) -> tuple[Path, ParityRecord]:
    """Obtain, check, compare, with one layer in memory at a time. Idempotent.

    Raises `UserError` when the base is absent, unsupported, or not reproduced.
    """
    model, folder = config.model, config.runs.base(config.model.name)
    base = BaseFolder(obtain_base(model, folder))
    base.check(model)
    reference = make_reference(folder)
    logits = engine_logits(model, from_folder(base, model), reference.tokens)
    record = compare(logits, reference, config.evaluate.parity_tolerance, "TP1 x PP1 x DP1")
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
