"""Which checkpoints may go: the last n, one every k steps and the n best are kept, and the newest in any case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cpt.checkpoint.records import CompleteRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """The policy of `checkpoint.keep_*`; 0 turns a part of it off."""

    last: int = 2
    every: int = 0
    """Steps."""
    best: int = 0
    """By held-out loss of the domain, where it was measured at the checkpoint's step."""


def removable(intact: Sequence[CompleteRecord], keep: Keep) -> list[int]:
    """Steps that may go, of `intact` checkpoints in ascending order. Never the newest, so never the only one."""
    kept = {record.step for record in intact[-max(keep.last, 1) :]}
    if keep.every:
        kept |= {record.step for record in intact if record.step % keep.every == 0}
    if keep.best:
        measured = sorted((record.domain_loss, record.step) for record in intact if record.domain_loss is not None)
        kept |= {step for _, step in measured[: keep.best]}
    return [record.step for record in intact if record.step not in kept]
