"""The step-0 gate: no step is spent on a model that is not the base.

The weights are imported in fp32 in the run's own layout and their logits held against the reference that `cpt base` left
beside the weights. That engine goes; then the one that will train, in its own precision, must give the base's loss on the
same text. The two are never in memory together.
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from cpt.config.run import RunConfig
from cpt.config.training import Precision
from cpt.convert import BaseFolder, import_weights
from cpt.convert.parity import FILE, Reference, next_token_loss, read_reference, relative_difference
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.core.records import ParityRecord
from cpt.engine import Engine

_LOSS_TOLERANCE = {Precision.fp32: 1e-4, Precision.bf16: 0.05}
"""Nats a token: rounding of the run's own precision. Wrong weights, which the fp32 logits have ruled out by then, cost far more."""


def check_base(config: RunConfig, folder: Path) -> ParityRecord:
    """Hold the base in this run's layout against its reference, in an engine of its own that is gone when this returns.

    Raises `UserError` when the base is not the model section's, or the engine would not answer as it does.
    """
    base = BaseFolder(folder)
    base.check(config.model)
    if not (folder / FILE).is_file():
        raise MissingInput(path=folder / FILE, why="the step-0 gate compares with what the base answers", fix=f"cpt base model={config.model.name}")
    record = _measure(config, base, read_reference(folder))
    gc.collect()  # modules point at each other: without this their memory would come back some time later
    if not record.passed:
        raise UserError(_mismatch("logits", record.logit_difference, record.tolerance, folder))
    return record


def load_base(engine: Engine, config: RunConfig, folder: Path) -> None:
    """Put a base that was checked into the engine that will train. Raises `UserError` when its loss there is not the base's."""
    import_weights(engine.chunks, config.model, BaseFolder(folder))
    engine.weights_changed()
    reference = read_reference(folder)
    loss = next_token_loss(engine.logits(reference.tokens.numpy()).cpu(), reference.tokens)
    gap, limit = abs(loss - reference.loss), _LOSS_TOLERANCE[engine.precision]
    if not gap <= limit:
        raise UserError(_mismatch(f"{engine.precision} loss", gap, limit, folder))


def _measure(config: RunConfig, base: BaseFolder, reference: Reference) -> ParityRecord:
    engine = Engine(config.model, config.parallel, Precision.fp32)
    import_weights(engine.chunks, config.model, base)
    return compare(engine.logits(reference.tokens.numpy()).cpu(), reference, config.evaluate.parity_tolerance, engine.describe())


def compare(logits: torch.Tensor, reference: Reference, tolerance: float, layout: str) -> ParityRecord:
    """What the engine answered in `layout`, [1, s, v] fp32, beside what the base answers."""
    return ParityRecord(
        logit_difference=relative_difference(logits, reference.logits),
        tolerance=tolerance,
        tokens=reference.tokens.numel(),
        engine_loss=next_token_loss(logits, reference.tokens),
        base_loss=reference.loss,
        layout=layout,
    )


def _mismatch(what: str, gap: float, limit: float, folder: Path) -> Problem:
    return Problem(
        where="step-0 gate",
        what=f"{what} of the loaded engine and of the base at {folder} differ by {gap:.3g}, allowed is {limit:.3g}",
        why="training would start from other weights than the base's",
        fix="check the model section against the base's config.json; remove the base folder and run `cpt base` again if it was edited",
    )
