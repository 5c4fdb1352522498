"""What a run trains on, in one hash; and the human's word when a run is to go on with other data.

A checkpoint carries the hash of what it was trained on. Whoever resumes it with other weights, another order or another corpus is
refused, unless `accepted_data.json` in the run directory names exactly that change.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cpt.config.run import RunConfig
from cpt.core.artifacts import Artifact, sha256_json
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths
from cpt.core.records import MixturePlan
from cpt.data.indexed import Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class DataChange(Artifact):
    """From one `data_fingerprint` to another, at the checkpoint of `step`; `time` in seconds since the epoch."""

    old: str
    new: str
    step: int
    time: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedData(Artifact):
    """Changes of the data that a human has accepted (`accepted_data.json`), written by `cpt resume --accept-changed-data`."""

    changes: list[DataChange] = field(default_factory=list)

    @classmethod
    def of(cls, run: RunPaths) -> AcceptedData:
        """Those of a run; none when nobody accepted any."""
        return cls.load(run.accepted_data) if run.accepted_data.is_file() else cls()

    def allows(self, old: str, new: str) -> bool:
        """Only the very change that was accepted."""
        return any((change.old, change.new) == (old, new) for change in self.changes)


def data_fingerprint(mixture: MixturePlan, config: RunConfig) -> str:
    """Hash of everything that decides which tokens sample i of the run has: sources in order, weights, seed, window, corpus."""
    return sha256_json(
        {
            "weights": [[name, weight] for name, weight in mixture.weights.items() if weight > 0],
            "seed": config.mixture.seed,
            "sequence_length": config.train.sequence_length,
            "data": mixture.data_hash,
        }
    )


def require_same_data(run: RunPaths, step: int, trained: str, now: str) -> None:
    """Raises `UserError` when the checkpoint of `step` was trained on other data than would be read now and nobody accepted it."""
    if trained == now or AcceptedData.of(run).allows(trained, now):
        return
    raise UserError(
        Problem(
            where=f"{run.root.name}, checkpoint of step {step}",
            what=f"was trained on mixture and data {trained[:10]}; now they are {now[:10]}",
            why="the samples that follow would not be those that were not read yet",
            fix=f"put config and corpus back; or cpt resume {run.root} --accept-changed-data",
        )
    )


def accept(run: RunPaths, step: int, old: str, new: str) -> None:
    """Allow the checkpoint of `step` to go on with other data."""
    change = DataChange(old=old, new=new, step=step, time=time.time())
    AcceptedData(changes=[*AcceptedData.of(run).changes, change]).save(run.accepted_data)


def row_checksums(tokens: Tokens) -> npt.NDArray[np.int64]:
    """CRC-32 of every row of [n, s + 1]: [n]."""
    return np.array([zlib.crc32(row.tobytes()) for row in tokens], dtype=np.int64)


def batch_crc32(checksums: npt.NDArray[np.int64]) -> int:
    """CRC-32 over the checksums of all rows of a global batch, in order: `data/batch_crc32` of the journal."""
    return zlib.crc32(checksums.tobytes())
