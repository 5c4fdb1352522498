"""`cpt devcluster start [nodes=3] | stop | status | kill <node> | up <node>`: a real SLURM on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cpt.core.errors import Problem, UserError
from slurm.devcluster import DevCluster


def main(overrides: Sequence[str]) -> int:
    """The cluster's folder is $CPT_DEVCLUSTER, the same that `cluster=devcluster` reads."""
    cluster = DevCluster(Path(os.environ.get("CPT_DEVCLUSTER", "/tmp/cpt-devcluster")))
    match list(overrides):
        case ["start", *options]:
            fresh = cluster.start(_nodes(options))
            print(f"{'started' if fresh else 'already running'}: {_states(cluster)}\nexport SLURM_CONF={cluster.files.slurm_conf}")
        case ["stop"]:
            cluster.stop()
            print("stopped")
        case ["status"]:
            print(_states(cluster) if cluster.is_running() else "not running")
        case ["kill", node]:
            cluster.kill(node)
            print(f"{node} lost power")
        case ["up", node]:
            cluster.up(node)
            print(f"{node} is switched on")
        case _:
            raise UserError(Problem(where="devcluster", what=" ".join(overrides) or "no command", why=__doc__ or "", fix="cpt devcluster start nodes=3"))
    return 0


def _nodes(options: list[str]) -> int:
    values = dict(option.partition("=")[::2] for option in options)
    wanted = values.pop("nodes", "3")
    if values or not wanted.isdigit() or not 1 <= int(wanted) <= 99:
        raise UserError(Problem(where="devcluster start", what=" ".join(options), why="takes nodes=<1 to 99>", fix="cpt devcluster start nodes=3"))
    return int(wanted)


def _states(cluster: DevCluster) -> str:
    return "  ".join(f"{node} {state}" for node, state in cluster.status().items())
