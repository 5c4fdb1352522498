"""A network for the nodes: one bridge, a network namespace for each node, and a cable between that can be cut."""

from __future__ import annotations

import os
import subprocess

from cpt.core.errors import CptError
from slurm.devcluster.layout import ClusterLayout
from slurm.devcluster.rights import SEARCH


def make_bridge(layout: ClusterLayout) -> bool:
    """False when the name or the network is taken, so that it is the lock of a slot."""
    if f"{layout.network}." in _ip("-4", "route") or not _try_ip("link", "add", layout.bridge, "type", "bridge"):
        return False
    _ip("address", "add", f"{layout.gateway}/16", "dev", layout.bridge)
    _ip("link", "set", layout.bridge, "up")
    return True


def plug_in(layout: ClusterLayout) -> None:
    """A namespace and a cable for every node, in one go; a node gives its own end an address when it boots."""
    lines = []
    for index in range(1, layout.nodes + 1):
        space = layout.namespace(index)
        lines += [f"netns add {space}", f"link add {space} type veth peer name eth0 netns {space}", f"link set {space} master {layout.bridge} up"]
    _ip("-batch", "-", text="\n".join(lines))


def cable(layout: ClusterLayout, index: int, *, up: bool) -> None:
    """A cable that is down swallows packets both ways: peers see silence, no connection is reset."""
    _ip("link", "set", layout.namespace(index), "up" if up else "down")


def remove(layout: ClusterLayout) -> None:
    """Take away what is there of it."""
    spaces = [layout.namespace(index) for index in range(1, layout.nodes + 1)]
    lines = [*(f"link del {space}" for space in spaces), *(f"netns del {space}" for space in spaces), f"link del {layout.bridge}"]
    _try_ip("-force", "-batch", "-", text="\n".join(lines))


def _ip(*arguments: str, text: str = "") -> str:
    done = _run(arguments, text)
    if done.returncode:
        raise CptError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _try_ip(*arguments: str, text: str = "") -> bool:
    return _run(arguments, text).returncode == 0


def _run(arguments: tuple[str, ...], text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], input=text, env=os.environ | {"PATH": SEARCH}, capture_output=True, text=True, check=False)
