"""What a run has trained on, in one hash.

A checkpoint carries the hash of what was read until there. Who resumes it with another past is refused: other weights, another order, another corpus.
What comes after it may be amended (`cpt.core.amendments`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cpt.config.run import RunConfig
from cpt.core.amendments import Segment
from cpt.core.artifacts import sha256_json
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths
from cpt.core.records import DataPosition
from cpt.data.indexed import Tokens


def data_fingerprint(segments: Sequence[Segment], config: RunConfig, samples: int) -> str:
    """Hash of everything that decided which tokens the first `samples` samples of the run had: sources in order, weights, token files, seed, window.

    Segments that start later are not in it: a checkpoint goes on under whatever was amended after it.
    """
    read = [segment for segment in segments if segment.start < samples or segment.start == 0]
    return sha256_json(
        {
            "segments": [[segment.start, *segment.mixture.reading] for segment in read],
            "seed": config.seed,
            "sequence_length": config.train.sequence_length,
        }
    )


def require_same_data(run: RunPaths, step: int, trained: DataPosition, now: DataPosition) -> None:
    """`trained`: the position in the checkpoint of `step`; `now`: what this run says it has read until there.

    Raises `UserError` when they differ in fingerprint, next sample or the tokens of any source.
    """
    if trained != now:
        raise UserError(
            Problem(
                where=f"{run.root.name}, checkpoint of step {step}",
                what=f"was trained on mixture and data {trained.fingerprint[:10]}; by {run.run.name} and {run.amendments.name} it is {now.fingerprint[:10]}",
                why="the samples that follow would not be those that were not read yet",
                fix="put both files back: what a run reads is changed with cpt resume RUN mixture.<key>=<value>",
            )
        )


def row_checksums(tokens: Tokens) -> npt.NDArray[np.int64]:
    """CRC-32 of every row of [n, s + 1]: [n]."""
    return np.array([zlib.crc32(row.tobytes()) for row in tokens], dtype=np.int64)


def batch_crc32(checksums: npt.NDArray[np.int64]) -> int:
    """CRC-32 over the checksums of all rows of a global batch, in order: `data/batch_crc32` of the journal."""
    return zlib.crc32(checksums.tobytes())
