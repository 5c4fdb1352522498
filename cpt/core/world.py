"""Where one process stands among all ranks. Made from SLURM's variables by `slurm.environment`, handed to the engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class World:
    """One rank's place; `local_rank` counts within its node and picks the GPU."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    master_addr: str = "127.0.0.1"
    master_port: int = 0
    """0: a free port is chosen, which only a world of one can do."""
    node_name: str = "localhost"
