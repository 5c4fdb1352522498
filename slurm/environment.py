"""Who this process is among all ranks, from the variables that SLURM or the local supervisor set for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths
from cpt.core.world import World

ATTEMPT = "CPT_ATTEMPT"
DEADLINE = "CPT_DEADLINE"

_SOURCES = (
    ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"),
    ("RANK", "LOCAL_RANK", "WORLD_SIZE"),
)
"""Rank, rank within the node, number of ranks. A batch script has the first two as well; only what srun started has a step."""


def world_from_environment(environment: Mapping[str, str] = os.environ) -> World:
    """Raises `UserError` when the variables of a rank are there but incomplete."""
    names = _source(environment)
    if names is None:
        return World(node_name=socket.gethostname())
    rank, local_rank, size = (_number(environment, name) for name in names)
    if size == 1:
        return World(node_name=_node(environment), local_rank=local_rank)
    return World(
        rank=rank,
        local_rank=local_rank,
        world_size=size,
        master_addr=_text(environment, "MASTER_ADDR"),
        master_port=_number(environment, "MASTER_PORT"),
        node_name=_node(environment),
    )


def attempt_from_environment(run: RunPaths, environment: Mapping[str, str] = os.environ) -> int:
    """The number that the batch script took; without one the next free number."""
    if ATTEMPT in environment:
        return _number(environment, ATTEMPT)
    taken = run.attempts()
    return taken[-1].number + 1 if taken else 0


def deadline_from_environment(environment: Mapping[str, str] = os.environ) -> float | None:
    """When this rank must have begun to save, seconds since the epoch; None without a time limit."""
    return float(_number(environment, DEADLINE)) if DEADLINE in environment else None


def master_port(job_id: str, attempt: int) -> int:
    """20000 to 29999, below the range of ephemeral ports; another one for each job and attempt, known without asking."""
    return 20_000 + (sum(int(part) for part in job_id.split("_") if part.isdigit()) * 131 + attempt * 17) % 10_000


def _source(environment: Mapping[str, str]) -> tuple[str, str, str] | None:
    slurm, plain = _SOURCES
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return plain
    return slurm if "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment else None


def _node(environment: Mapping[str, str]) -> str:
    return environment.get("SLURMD_NODENAME") or socket.gethostname()


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _text(environment, name)
    if not text.isdigit():
        raise UserError(Problem(where=name, what=repr(text), why="this variable of the environment must be a number", fix=f"unset {name}"))
    return int(text)


def _text(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise UserError(Problem(where=name, what="not set", why="a rank of several needs it", fix="start ranks with `cpt launch`"))
    return environment[name]
