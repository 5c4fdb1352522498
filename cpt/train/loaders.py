"""Two ways from a reader's rows to int64 tokens on this rank's device, behind one interface: PyTorch's and NVIDIA DALI's."""

from __future__ import annotations

import importlib
import platform
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from cpt.config.loader import LoaderConfig, LoaderKind
from cpt.core.errors import Problem, UserError
from cpt.data.reading import Reader


@dataclass(frozen=True, slots=True)
class Rows:
    """This replica's rows of one global batch, read and checked."""

    start: int
    """Sample number of the global batch's first row."""
    tokens: npt.NDArray[np.int64]
    """[m, s + 1]"""
    checksums: npt.NDArray[np.int64]
    """[m]: CRC-32 of each row, of its 64-bit tokens."""


class Loader(Protocol):
    """Rows in order; `close` ends what it has started."""

    def next(self) -> tuple[Rows, torch.Tensor]:
        """The rows, and their tokens [m, s + 1] int64 on the device, good until the next call. Raises what reading raised."""

    def close(self) -> None:
        """Also ends the reader."""


class MemmapLoader:
    """PyTorch's copy, of rows that the reader has read ahead."""

    def __init__(self, reader: Reader[Rows]) -> None:
        self._reader = reader

    def next(self) -> tuple[Rows, torch.Tensor]:
        """As `Loader`."""
        rows = self._reader.next()
        tokens = torch.from_numpy(rows.tokens)
        return rows, tokens.pin_memory().cuda(non_blocking=True) if torch.cuda.is_available() else tokens

    def close(self) -> None:
        """As `Loader`."""
        self._reader.close()


class DaliLoader:
    """A DALI pipeline that is fed by the reader: rows of 32 bits, pinned and copied ahead, cast on the device. On the CPU without a GPU."""

    def __init__(self, reader: Reader[Rows], replica_rows: int, depth: int) -> None:
        from nvidia.dali import fn
        from nvidia.dali.pipeline import Pipeline
        from nvidia.dali.types import DALIDataType

        self._reader = reader
        self._ahead: deque[Rows] = deque()
        """Given to the pipeline, not yet come out of it."""
        self._error: Exception | None = None
        """What ended reading, some batches before it is due."""
        device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._pipeline: Any = Pipeline(batch_size=replica_rows, num_threads=1, device_id=device, prefetch_queue_depth=depth)
        with self._pipeline:
            rows = fn.external_source(source=self._pull, batch=True, dtype=DALIDataType.INT32, ndim=1)
            self._pipeline.set_outputs(fn.cast(rows if device is None else rows.gpu(), dtype=DALIDataType.INT64))
        self._pipeline.build()

    def next(self) -> tuple[Rows, torch.Tensor]:
        """As `Loader`."""
        try:
            (tokens,) = self._pipeline.run()
        except StopIteration:
            assert self._error
            raise self._error from None
        return self._ahead.popleft(), torch.utils.dlpack.from_dlpack(tokens.as_tensor())

    def close(self) -> None:
        """As `Loader`."""
        self._reader.close()
        del self._pipeline

    def _pull(self) -> npt.NDArray[np.int32]:
        """DALI asks for batches before they are due. `StopIteration` lets it hand out those that it has; any other error would lose them."""
        try:
            rows = self._reader.next()
        except Exception as error:
            self._error = error
            raise StopIteration from None
        self._ahead.append(rows)
        return rows.tokens.astype(np.int32)


def require_installed(config: LoaderConfig) -> None:
    """Raises `UserError` where the chosen loader cannot be imported; before any weights are loaded."""
    if config.kind is LoaderKind.dali:
        try:
            importlib.import_module("nvidia.dali.fn")
        except (ImportError, OSError) as error:
            why = f"NVIDIA DALI cannot be imported on {platform.node()}: {error}"
            raise UserError(Problem(where="loader.kind", what="is dali", why=why, fix="install nvidia-dali-cuda130 there, or loader=memmap")) from error


def open_loader(config: LoaderConfig, reader: Reader[Rows], replica_rows: int) -> Loader:
    """Of the kind that was chosen, or none: nothing falls back to the other."""
    return DaliLoader(reader, replica_rows, config.depth) if config.kind is LoaderKind.dali else MemmapLoader(reader)
