"""Does a node live? Asked of SLURM's daemon on it, directly: the controller itself learns of a dead node only after its own time-out."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

_PATIENCE = 2.0
"""Seconds that a daemon has for taking a connection."""


def answering(daemons: Mapping[str, tuple[str, int]], nodes: Sequence[str]) -> set[str]:
    """Those of `nodes` whose daemon takes a connection now; one whose address is unknown gets the benefit of the doubt."""
    with ThreadPoolExecutor(max(1, min(64, len(nodes)))) as pool:
        lives = list(pool.map(lambda node: node not in daemons or _connects(daemons[node]), nodes))
    return {node for node, alive in zip(nodes, lives, strict=True) if alive}


def _connects(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address, timeout=_PATIENCE):
        return True
    return False
