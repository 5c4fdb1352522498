"""Training: from a run directory to its last checkpoint, through any number of attempts.

    train_run            one rank's attempt at a run; the loop is `loop.train`, at most 70 lines
    open_session         the base's or a checkpoint's weights in one process, for evaluation and export

A signal only sets a flag; all ranks agree on it between steps; the loop decides. Nothing here knows SLURM.
"""

from cpt.train.run import Life, train_run
from cpt.train.session import Session, open_session

__all__ = ["Life", "Session", "open_session", "train_run"]
