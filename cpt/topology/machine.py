"""`Machine`: one node. GPUs, who reaches whom over NVLink, and which adapter is whose rail, is for storage, or is down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cpt.core.artifacts import Artifact
from cpt.topology.adapters import ETHERNET, INFINIBAND, Port
from cpt.topology.matrix import Matrix, domains, links, nearest


class Role(StrEnum):
    """What an adapter's port is for."""

    rail = "rail"  # carries what GPUs of different nodes say to each other
    storage = "storage"  # another network: file systems, management
    down = "down"


@dataclass(frozen=True, kw_only=True, slots=True)
class Nic(Artifact):
    """A port and what it was found to be."""

    port: Port
    role: Role
    why: str
    gpus: tuple[int, ...] = ()
    """GPUs below the same host bridge (PIX, PXB)."""

    @property
    def name(self) -> str:
        """As NCCL_IB_HCA names it: the port only where it is not the first."""
        return self.port.adapter if self.port.number == 1 else f"{self.port.adapter}:{self.port.number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu(Artifact):
    """A GPU's place; its index is its local rank."""

    index: int
    numa: int | None = None
    cpus: str = ""
    rail: str | None = None
    """Its adapter, by `Nic.name`; None where nothing tells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interface(Artifact):
    """A network interface that TCP could use."""

    name: str
    up: bool = False
    speed: float = 0.0
    """Gb/s; 0 where the kernel does not say."""
    default_route: bool = False
    part_of: str = ""
    """The bond or bridge that it belongs to, and that is used in its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine(Artifact):
    """Facts of one node."""

    gpus: tuple[Gpu, ...] = ()
    nvlinks: int = 0
    """NVLinks between two GPUs: 18 of an H100 behind NVSwitch, 0 without."""
    domains: tuple[tuple[int, ...], ...] = ()
    """GPUs that reach each other over NVLink."""
    nics: tuple[Nic, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    hidden: bool = False
    """No adapter shares a PCIe switch with a GPU: a virtual machine that hides them, or such wiring."""
    missing: tuple[str, ...] = ()
    """What could not be asked, and why."""

    def having(self, role: Role) -> tuple[Nic, ...]:
        """Ports in this role."""
        return tuple(nic for nic in self.nics if nic.role is role)


def machine(matrix: Matrix | None = None, ports: Sequence[Port] = (), interfaces: Sequence[Interface] = (), missing: Sequence[str] = ()) -> Machine:
    """Put together what was read. Adapters that only the matrix shows count as up, on a link layer that is not known."""
    known = {port.adapter for port in ports}
    every = [*ports, *(Port(adapter=name) for name in (matrix.nics if matrix else ()) if name not in known)]
    near = _near(matrix)
    nics = tuple(_judged(every, near))
    rails = _rails(matrix, nics)
    gpus = range(len(matrix.gpus)) if matrix else ()
    return Machine(
        gpus=tuple(Gpu(index=gpu, numa=_node(matrix.numa[gpu]), cpus=matrix.cpus[gpu], rail=rails.get(gpu)) for gpu in gpus) if matrix else (),
        nvlinks=links(matrix) if matrix else 0,
        domains=domains(matrix) if matrix else (),
        nics=nics,
        interfaces=tuple(interfaces),
        hidden=bool(matrix and any(nic.role is Role.rail for nic in nics) and not any(nic.gpus for nic in nics if nic.role is Role.rail)),
        missing=tuple(missing),
    )


def _near(matrix: Matrix | None) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for gpu in range(len(matrix.gpus)) if matrix else ():
        for nic in nearest(matrix, gpu) if matrix else ():
            found[nic] = (*found.get(nic, ()), gpu)
    return found


def _judged(ports: Sequence[Port], near: Mapping[str, tuple[int, ...]]) -> list[Nic]:
    """Rails are the fastest ports of one link layer, close to GPUs where any port is: an Ethernet port on a GPU's switch is no rail beside InfiniBand."""
    up = [port for port in ports if port.up]
    close = [port for port in up if port.adapter in near]
    pool = close or up
    infiniband = any(port.link_layer == INFINIBAND for port in pool)
    pool = [port for port in pool if not (infiniband and port.link_layer == ETHERNET)]
    fastest = max((port.rate for port in pool), default=0.0)
    return [_one(port, near.get(port.adapter, ()), pool, fastest, bool(close)) for port in ports]


def _one(port: Port, gpus: tuple[int, ...], pool: Sequence[Port], fastest: float, close: bool) -> Nic:
    if not port.up:
        return Nic(port=port, role=Role.down, why=", ".join(word for word in (port.state, port.physical) if word).lower(), gpus=gpus)
    if close and not gpus:
        return Nic(port=port, role=Role.storage, why="no GPU close")
    if port not in pool:
        return Nic(port=port, role=Role.storage, why="Ethernet beside InfiniBand", gpus=gpus)
    if port.rate * 2 < fastest:
        return Nic(port=port, role=Role.storage, why=f"{port.rate:g} Gb/s beside {fastest:g}", gpus=gpus)
    where = "close to GPU " + ", ".join(map(str, gpus)) if gpus else "no adapter is close to a GPU, so nearness does not tell"
    return Nic(port=port, role=Role.rail, why=where, gpus=gpus)


def _rails(matrix: Matrix | None, nics: Sequence[Nic]) -> dict[int, str]:
    """Each GPU's nearest rail; of equally near ones, the least used."""
    names: dict[str, list[str]] = {}
    for nic in nics:
        if nic.role is Role.rail:
            names.setdefault(nic.port.adapter, []).append(nic.name)
    used: dict[str, int] = {}
    chosen: dict[int, str] = {}
    for gpu in range(len(matrix.gpus)) if matrix else ():
        near = [name for name in nearest(matrix, gpu) if name in names] if matrix else []
        best = [name for name in near if matrix and matrix.to_nic(gpu, name) == matrix.to_nic(gpu, near[0])]
        options = [name for adapter in best for name in names[adapter]]
        if options:
            chosen[gpu] = min(options, key=lambda name: used.get(name, 0))
            used[chosen[gpu]] = used.get(chosen[gpu], 0) + 1
    return chosen


def _node(text: str) -> int | None:
    """A range is no answer: the GPU hangs on one of them, nobody says which."""
    return int(text) if text.isdecimal() else None
