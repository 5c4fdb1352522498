"""RDMA adapters of a node, from `ibstat` or from /sys/class/infiniband: ports, state, rate, link layer, firmware."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpt.core.artifacts import Artifact
from cpt.core.errors import Problem, UserError
from cpt.topology.names import natural

INFINIBAND, ETHERNET = "InfiniBand", "Ethernet"


@dataclass(frozen=True, kw_only=True, slots=True)
class Port(Artifact):
    """One port of one adapter. What its source does not say is empty, 0 or None."""

    adapter: str
    number: int = 1
    state: str = ""
    """`Active`, `Down`, `Initializing`, ...; empty means unknown."""
    physical: str = ""
    """`LinkUp`, `Polling`, `Disabled`, ..."""
    rate: float = 0.0
    """Gb/s, all lanes of the port together."""
    link_layer: str = ""
    """`InfiniBand` or `Ethernet` (then RDMA on it is RoCE)."""
    guid: str = ""
    """Of the node, 16 hex digits."""
    firmware: str = ""
    model: str = ""
    interfaces: tuple[str, ...] = ()
    """Network interfaces on this adapter: `ibp24s0`, `enp25s0np0`."""
    gid_index: int | None = None
    """Of the first RoCE v2 address over IPv4, what NCCL_IB_GID_INDEX takes."""

    @property
    def up(self) -> bool:
        """A port whose state nobody said counts as up."""
        return self.state in ("", "Active") and self.physical in ("", "LinkUp")


def parse_ibstat(text: str) -> tuple[Port, ...]:
    """Ports by adapter, as people count. No output is no adapter; raises `UserError` for other text."""
    found = re.split(r"^CA '([^']+)'", text, flags=re.MULTILINE)
    said = [line for line in found[0].splitlines() if line.strip() and not line.startswith(("ibpanic", "ibwarn"))]
    if said:
        raise UserError(Problem(where="ibstat", what=f"says {said[0][:100]!r}", why="is not a list of adapters", fix="run `ibstat` on a compute node"))
    ports = [port for name, block in zip(found[1::2], found[2::2], strict=True) for port in _ports(name, block)]
    return tuple(sorted(ports, key=_place))


def read_sysfs(root: Path = Path("/")) -> tuple[Port, ...]:
    """The same from `<root>/sys/class/infiniband`, for any user and without a tool; nothing there is no adapter."""
    folder = root / "sys/class/infiniband"
    adapters = sorted(folder.iterdir()) if folder.is_dir() else []
    return tuple(sorted((port for adapter in adapters for port in _sysfs_ports(adapter)), key=_place))


def said(path: Path) -> str:
    """Content of a small file; empty when the kernel does not answer (a link that is down, a file that needs root)."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _ports(name: str, block: str) -> Iterator[Port]:
    head, *rest = re.split(r"^\s+Port (\d+):", block, flags=re.MULTILINE)
    adapter = _fields(head)
    for number, body in zip(rest[0::2], rest[1::2], strict=True):
        port = _fields(body)
        yield Port(
            adapter=name,
            number=int(number),
            state=port.get("State", ""),
            physical=port.get("Physical state", ""),
            rate=_rate(port.get("Rate", "")),
            link_layer=port.get("Link layer", ""),
            guid=_guid(adapter.get("Node GUID", "")),
            firmware=adapter.get("Firmware version", ""),
            model=adapter.get("CA type", ""),
        )


def _sysfs_ports(adapter: Path) -> Iterator[Port]:
    interfaces = sorted((path.name for path in (adapter / "device/net").glob("*")), key=natural)
    for port in sorted((adapter / "ports").glob("*"), key=lambda path: natural(path.name)):
        if not port.name.isdecimal():
            continue
        yield Port(
            adapter=adapter.name,
            number=int(port.name),
            state=said(port / "state").rpartition(":")[2].strip().capitalize(),  # `4: ACTIVE`
            physical=said(port / "phys_state").rpartition(":")[2].strip(),  # `5: LinkUp`
            rate=_rate(said(port / "rate")),  # `400 Gb/sec (4X NDR)`
            link_layer=said(port / "link_layer"),
            guid=_guid(said(adapter / "node_guid")),
            firmware=said(adapter / "fw_ver"),
            model=said(adapter / "hca_type"),
            interfaces=tuple(interfaces),
            gid_index=_roce_v2(port),
        )


def _roce_v2(port: Path) -> int | None:
    """Addresses of a RoCE port are there in version 1 and 2, over IPv6 and IPv4; only the last combination is routed everywhere."""
    for index in sorted(int(path.name) for path in (port / "gid_attrs/types").glob("*") if path.name.isdecimal()):
        mapped = said(port / "gids" / str(index)).startswith("0000:0000:0000:0000:0000:ffff:")
        if mapped and said(port / "gid_attrs/types" / str(index)) == "RoCE v2":
            return index
    return None


def _fields(text: str) -> dict[str, str]:
    return {key.strip(): value.strip() for key, mark, value in (line.partition(":") for line in text.splitlines()) if mark}


def _rate(text: str) -> float:
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else 0.0


def _guid(text: str) -> str:
    return text.removeprefix("0x").replace(":", "").lower()


def _place(port: Port) -> tuple[object, int]:
    return natural(port.adapter), port.number
