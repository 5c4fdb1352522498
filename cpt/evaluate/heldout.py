"""Held-out loss per source, and the same in bits per byte, which compares across tokenizers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from cpt.core.manifest import DataManifest
from cpt.core.records import SourceLoss

Windows = npt.NDArray[np.int64]
TokenLosses = Callable[[Windows], npt.NDArray[np.float32]]
"""Windows [n, s + 1] -> loss of each next token [n, s], nats."""


def heldout_losses(token_losses: TokenLosses, windows: Mapping[str, npt.NDArray[np.integer]], manifest: DataManifest) -> list[SourceLoss]:
    """One loss per source over its windows [n, s + 1]; every token counts the same."""
    return [_source_loss(name, rows.astype(np.int64), token_losses, manifest) for name, rows in windows.items()]


def _source_loss(name: str, rows: Windows, token_losses: TokenLosses, manifest: DataManifest) -> SourceLoss:
    source, losses = manifest.source(name), token_losses(rows)
    loss, text = float(losses.mean(dtype=np.float64)), hashlib.sha256(rows.tobytes()).hexdigest()
    return SourceLoss(name=name, group=source.group, loss=loss, bits_per_byte=source.heldout.bits_per_byte(loss), tokens=losses.size, text_sha256=text)
