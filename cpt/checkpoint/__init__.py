"""Checkpoints that are complete or invisible: folders (`store`, no torch) and the bytes in them (`sharded`, megatron).

::

    checkpoints/step_00000020/       complete: was renamed into place after every byte was on disk
                .step_00000030.tmp/  being written, or torn by a kill; never looked at, removed by the next save
                latest.json          {"step": 20}, for people and for `slurm.recovery`
"""

from cpt.checkpoint.store import CheckpointStore

__all__ = ["CheckpointStore"]
