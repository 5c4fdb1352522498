"""Checkpoints that are complete or invisible, written by every rank on its own and read by any layout.

::

    checkpoints/step_00000020/          complete: was renamed into place after every byte was on disk
                    rank_00003.safetensors   what rank 3 held: rectangles of global tensors, `<tensor>[<offset>]`
                    index.json               tensor -> type, global shape, and where each of its rectangles is
                    complete.json            step, layout, training's own numbers; file -> bytes and xxh3_128
                .step_00000030.tmp/     being written, or torn by a kill; never looked at, removed by the next attempt
                .step_00000010.gone/    being removed
                .step_00000010.old/     being replaced, after a roll-back, by a save of the same step; put back if a kill came between
                step_00000020.damaged/  set aside: its bytes are not what was written
                latest.json             {"step": 20}, for people and for `slurm.recovery`

A weight is written once, as the optimizer's fp32 master; what the model computes with is that, rounded. No torch: `store` (the
folder), `records`, `retention`, `verify`. The bytes: `chunks` (state as rectangles), `writer`, `reader`, `generators`, `state`.
"""

from cpt.checkpoint.retention import Keep
from cpt.checkpoint.store import CheckpointStore

__all__ = ["CheckpointStore", "Keep"]
