"""The step-0 gate: no step is spent on a model that is not the base.

The weights are imported in fp32 in the run's own layout and their logits held against the reference that `cpt base` left
beside the weights; then the engine that will train, in its own precision, must give the base's loss on the same text.
"""

from __future__ import annotations

from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.training import Precision
from cpt.convert import BaseFolder, import_weights
from cpt.convert.parity import FILE, Reference, next_token_loss, read_reference, relative_difference
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.core.records import ParityRecord
from cpt.engine import Engine

_LOSS_TOLERANCE = {Precision.fp32: 1e-4, Precision.bf16: 0.05}
"""Nats a token: rounding of the run's own precision. Wrong weights, which the fp32 logits have ruled out by then, cost far more."""


def load_base(engine: Engine, config: RunConfig, folder: Path) -> ParityRecord:
    """Put the base into `engine`, or raise `UserError` when it would not answer as the base does."""
    base = BaseFolder(folder)
    base.check(config.model)
    if not (folder / FILE).is_file():
        raise MissingInput(path=folder / FILE, why="the step-0 gate compares with what the base answers", fix=f"cpt base model={config.model.name}")
    reference = read_reference(folder)
    record = measure(config, base, reference)
    if not record.passed:
        raise UserError(_mismatch("logits", record.logit_difference, record.tolerance, folder))
    import_weights(engine.chunks, config.model, base)
    engine.weights_changed()
    _check_loss(engine, reference, folder)
    return record


def measure(config: RunConfig, base: BaseFolder, reference: Reference) -> ParityRecord:
    """fp32 logits of the imported weights in this layout against the reference."""
    engine = Engine(config.model, config.parallel, Precision.fp32)
    import_weights(engine.chunks, config.model, base)
    logits = engine.logits(reference.tokens.numpy()).cpu()
    return ParityRecord(
        logit_difference=relative_difference(logits, reference.logits),
        tolerance=config.evaluate.parity_tolerance,
        tokens=reference.tokens.numel(),
        engine_loss=next_token_loss(logits, reference.tokens),
        base_loss=reference.loss,
        layout=engine.describe(),
    )


def _check_loss(engine: Engine, reference: Reference, folder: Path) -> None:
    loss = next_token_loss(engine.logits(reference.tokens.numpy()).cpu(), reference.tokens)
    gap, limit = abs(loss - reference.loss), _LOSS_TOLERANCE[engine.precision]
    if not gap <= limit:
        raise UserError(_mismatch(f"{engine.precision} loss", gap, limit, folder))


def _mismatch(what: str, gap: float, limit: float, folder: Path) -> Problem:
    return Problem(
        where="step-0 gate",
        what=f"{what} of the loaded engine and of the base at {folder} differ by {gap:.3g}, allowed is {limit:.3g}",
        why="training would start from other weights than the base's",
        fix="check the model section against the base's config.json; remove the base folder and run `cpt base` again if it was edited",
    )
