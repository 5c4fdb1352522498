"""`cpt devcluster start [nodes=3] [accounting=true] | stop | status | kill node7 | up node7 | cut node7 | slow node7 [rate=20mbit] | heal node7 | bad node7
[kind=prolog|health] | good node7`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cpt.core.errors import Problem, UserError
from slurm.devcluster import DevCluster

_DONE = {
    "kill": "{node} lost power: what ran there is gone, its peers hear nothing. Back with: cpt devcluster up {node}",
    "up": "{node} is switched on",
    "cut": "{node} is cut off: what runs there lives on, unheard. Back with: cpt devcluster heal {node}",
    "slow": "{node} has a slow cable. Back with: cpt devcluster heal {node}",
    "heal": "{node} is on the network",
    "bad": "{node} is bad: SLURM drains it, when a job comes (kind=prolog) or within seconds (kind=health). Back with: cpt devcluster good {node}",
    "good": "{node} is good again",
}
_OPTIONS = {"bad": {"kind": "prolog"}, "slow": {"rate": "20mbit"}}


def main(overrides: Sequence[str]) -> int:
    """The cluster's folder is $CPT_DEVCLUSTER, the same that `cluster=devcluster` reads."""
    cluster = DevCluster(Path(os.environ.get("CPT_DEVCLUSTER", "/tmp/cpt-devcluster")))
    match list(overrides):
        case ["start", *options]:
            print(_start(cluster, _values(options, nodes="3", accounting="false")))
        case ["stop"]:
            cluster.stop()
            print("stopped")
        case ["status"]:
            print("\n".join(cluster.summary()) if cluster.is_running() else "not running")
        case [command, node, *options] if command in _DONE:
            getattr(cluster, command)(node, **_values(options, **_OPTIONS.get(command, {})))
            print(_DONE[command].format(node=node))
        case _:
            raise UserError(Problem(where="devcluster", what=" ".join(overrides) or "no command", why=__doc__ or "", fix="cpt devcluster start nodes=3"))
    return 0


def _start(cluster: DevCluster, options: dict[str, str]) -> str:
    nodes, accounting = options["nodes"], options["accounting"]
    if not nodes.isdigit() or not 1 <= int(nodes) <= 99 or accounting not in ("true", "false"):
        why = "takes nodes=<1 to 99> and accounting=true or false"
        raise UserError(Problem(where="devcluster start", what=f"nodes={nodes} accounting={accounting}", why=why, fix="cpt devcluster start nodes=3"))
    fresh = cluster.start(int(nodes), accounting=accounting == "true")
    as_asked = fresh or (cluster.layout.nodes == int(nodes) and (cluster.layout.accounting or accounting == "false"))
    first = "started" if fresh else "already running" if as_asked else "already running, and not as asked: cpt devcluster stop, then start it again"
    return "\n".join([first, *cluster.summary(), f"export SLURM_CONF={cluster.files.slurm_conf}"])


def _values(options: list[str], **known: str) -> dict[str, str]:
    given = dict(option.partition("=")[::2] for option in options)
    if unknown := given.keys() - known.keys():
        fix = " ".join(f"{name}={value}" for name, value in known.items()) or "no option"
        raise UserError(Problem(where="devcluster", what=" ".join(sorted(unknown)), why="no such option here", fix=fix))
    return known | given
