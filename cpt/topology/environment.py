"""A node's facts -> what NCCL and srun must be told, each value with its reason. What the facts do not say stays unsaid: NCCL finds it itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cpt.topology.adapters import ETHERNET, INFINIBAND
from cpt.topology.machine import Interface, Machine, Role
from cpt.topology.names import natural

type Variables = dict[str, tuple[str, str]]
"""Name -> (value, reason)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What only people know about a network. Nothing said, nothing set."""

    sharp: bool = False
    """The switches reduce, and NCCL's plugin for it is installed on every node."""
    socket_interface: str = ""
    gid_index: int | None = None
    traffic_class: int | None = None
    """Which class of RoCE traffic the switches treat as lossless."""
    ib_timeout: int | None = None
    ib_retry: int | None = None
    topology_file: str = ""
    """What a cloud's provider ships for its virtual machines."""


NOTHING_SAID = Site()


def variables(machine: Machine, site: Site = NOTHING_SAID) -> Variables:
    """NCCL's variables for nodes like this one, in the order in which they are best read."""
    return dict(sorted(_facts(machine, site), key=lambda item: 0 if item[0] == "NCCL_IB_HCA" else 1)) | dict(_said(site))


def cpu_bind(machine: Machine) -> str:
    """For `cluster.cpu_bind`: rank i on the NUMA node of GPU i. Empty where that is not known of every GPU, or there is only one node."""
    nodes = [gpu.numa for gpu in machine.gpus]
    return "map_ldom:" + ",".join(map(str, nodes)) if None not in nodes and len(set(nodes)) > 1 else ""


def fabric_yaml(name: str, machine: Machine, site: Site = NOTHING_SAID) -> str:
    """Text of `hydra_conf/fabric/<name>.yaml`. Reasons are values too, so that they reach the batch script."""
    head = [f"# {line}" for line in _described(machine)]
    found = variables(machine, site)
    values = [f"  {key}: {_quoted(value)}" for key, (value, _) in found.items()]
    reasons = [f"  {key}: {_quoted(reason)}" for key, (_, reason) in found.items()]
    body = ["environment:", *values, "reasons:", *reasons] if found else []
    return "\n".join([*head, "defaults:", "  - nccl", "  - _self_", f"name: {name}", *body]) + "\n"


def _facts(machine: Machine, site: Site) -> Iterator[tuple[str, tuple[str, str]]]:
    rails = machine.having(Role.rail)
    if rails:
        names = sorted((nic.name for nic in rails), key=natural)
        yield "NCCL_IB_HCA", ("=" + ",".join(names), _rails_reason(machine))
    if interface := _interface(machine, bool(rails)):
        why = "where the default route goes: ranks find each other over it" if interface.default_route else "the fastest interface that is up"
        if not site.socket_interface:
            yield "NCCL_SOCKET_IFNAME", (f"={interface.name}", f"{why}; `=` keeps docker0 and its like out")
    indices = {nic.port.gid_index for nic in rails if nic.port.link_layer == ETHERNET}
    if site.gid_index is None and len(indices) == 1 and (index := indices.pop()) is not None:
        yield "NCCL_IB_GID_INDEX", (str(index), "the same on every rail: its RoCE v2 address over IPv4, the one that is routed")


def _said(site: Site) -> Iterator[tuple[str, tuple[str, str]]]:
    if site.socket_interface:
        yield "NCCL_SOCKET_IFNAME", (f"={site.socket_interface}", "the site says that ranks find each other over it; `=` matches exactly")
    if site.gid_index is not None:
        yield "NCCL_IB_GID_INDEX", (str(site.gid_index), "the site's RoCE v2 address, by `show_gids`")
    if site.traffic_class is not None:
        yield "NCCL_IB_TC", (str(site.traffic_class), "the traffic class that the site's switches treat as lossless")
    if site.sharp:
        yield "NCCL_COLLNET_ENABLE", ("1", "the site's switches reduce (SHARP), and its plugin is installed")
    if site.ib_timeout is not None:
        yield "NCCL_IB_TIMEOUT", (str(site.ib_timeout), f"the site says so: a packet is lost after 4.096 us * 2^{site.ib_timeout}")
    if site.ib_retry is not None:
        yield "NCCL_IB_RETRY_CNT", (str(site.ib_retry), "the site says so: a link may be down for so many timeouts")
    if site.topology_file:
        yield "NCCL_TOPO_FILE", (site.topology_file, "the provider's own file: its virtual machines hide which GPU and adapter are neighbors")


def _rails_reason(machine: Machine) -> str:
    rails, others = machine.having(Role.rail), [nic for nic in machine.nics if nic.role is not Role.rail]
    if machine.hidden or not machine.gpus:
        which = "what looks like compute rails, for no adapter shows which GPU is near"
    else:
        own = len({gpu.rail for gpu in machine.gpus if gpu.rail})
        which = (
            "compute rails only, one for each GPU"
            if own == len(rails) == len(machine.gpus)
            else f"compute rails only, {len(rails)} for {len(machine.gpus)} GPUs"
        )
    out: dict[str, list[str]] = {}
    for nic in others:
        out.setdefault(nic.why, []).append(nic.name)
    left = ", ".join(f"{' '.join(names)} ({why})" for why, names in out.items())
    return f"{which}; left out: {left}" if left else which


def _interface(machine: Machine, rdma: bool) -> Interface | None:
    """With RDMA only the first handshake goes over TCP, so any way that certainly leads to all nodes will do; without it everything does: the fastest."""
    options = [one for one in machine.interfaces if one.up and not one.part_of]
    if rdma:
        options = [one for one in options if one.default_route]
    return max(options, key=lambda one: (one.speed, one.default_route), default=None)


def _described(machine: Machine) -> Iterator[str]:
    layers = {nic.port.link_layer for nic in machine.having(Role.rail)}
    between = {INFINIBAND: "InfiniBand", ETHERNET: "RDMA over Ethernet"}
    network = " and ".join(sorted(between[layer] for layer in layers if layer in between)) or ("RDMA" if layers else "TCP")
    links = f", {machine.nvlinks} NVLinks each" if machine.nvlinks else ""
    rails = len(machine.having(Role.rail))
    seen = f"{rails} rails" if rails else "no RDMA adapter that is up"
    yield f"{network} between nodes, as one of them shows it: {len(machine.gpus)} GPUs{links}, {seen}. Holds for nodes of the same make."
    if bind := cpu_bind(machine):
        yield f"For their cluster: cpu_bind: {bind}"
    yield from (f"Not known: {line}" for line in machine.missing)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def reasons(found: Mapping[str, tuple[str, str]]) -> list[tuple[str, str]]:
    """(`NAME=value`, reason) for people."""
    return [(f"{name}={value}", reason) for name, (value, reason) in found.items()]
