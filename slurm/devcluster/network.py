"""A network for the nodes: one bridge, a network namespace for each node, and a cable between that can be cut, or slow."""

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


def throttle(layout: ClusterLayout, index: int, rate: str) -> None:
    """A cable that came up slower than it should, both ways. `rate` as tc takes it (`20mbit`); empty takes the limit away."""
    space = layout.namespace(index)
    for where, device in (((), space), (("-netns", space), "eth0")):
        _run("tc", (*where, "qdisc", "del", "dev", device, "root"), "")  # there may be none
        limit = ("tbf", "rate", rate, "burst", "256kb", "latency", "50ms")  # a burst holds the largest packet that a veth passes on uncut
        if rate and (done := _run("tc", (*where, "qdisc", "add", "dev", device, "root", *limit), "")).returncode:
            raise CptError(f"tc: {done.stderr.strip()}")


def remove(layout: ClusterLayout) -> None:
    """Take away what is there of it."""
    spaces = [layout.namespace(index) for index in range(1, layout.nodes + 1)]
    lines = [*(f"link del {space}" for space in spaces), *(f"netns del {space}" for space in spaces), f"link del {layout.bridge}"]
    _try_ip("-force", "-batch", "-", text="\n".join(lines))


def _ip(*arguments: str, text: str = "") -> str:
    done = _run("ip", arguments, text)
    if done.returncode:
        raise CptError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _try_ip(*arguments: str, text: str = "") -> bool:
    return _run("ip", arguments, text).returncode == 0


def _run(program: str, arguments: tuple[str, ...], text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], input=text, env=os.environ | {"PATH": SEARCH}, capture_output=True, text=True, check=False)
