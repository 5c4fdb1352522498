"""Where one development cluster keeps its files, and the names, addresses and ports of one that lives beside others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpt.core.artifacts import Artifact


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterLayout(Artifact):
    """One cluster (`cluster.json`). Two clusters on a machine differ in `slot`, which is in every name, address and port."""

    slot: int
    nodes: int
    isolated: bool
    """True: each node has its own network, host name and process tree. False: process tree only, all on loopback."""
    accounting: bool = False
    """Whether a slurmdbd and its database run beside it."""
    leaf: int = 0
    """Nodes on a leaf switch, as SLURM is told; 0 tells it of no switches. They are dealt round, so that names say nothing about places."""

    @property
    def bridge(self) -> str:
        """The bridge that joins the nodes; its name is what claims a slot."""
        return f"cptbr{self.slot}"

    @property
    def network(self) -> str:
        """First half of every address."""
        return f"10.{77 + self.slot}"

    @property
    def gateway(self) -> str:
        """The login host's address on the bridge."""
        return f"{self.network}.0.1"

    @property
    def controller_port(self) -> int:
        """Where slurmctld listens."""
        return 26_800 + self.slot

    @property
    def accounting_port(self) -> int:
        """Where slurmdbd listens, if there is one."""
        return 26_850 + self.slot

    @property
    def names(self) -> list[str]:
        """All nodes, in order."""
        return [self.name(index) for index in range(1, self.nodes + 1)]

    def leaves(self) -> list[list[str]]:
        """Nodes of each leaf switch; none where SLURM is told of none."""
        count = -(-self.nodes // self.leaf) if self.leaf else 0
        return [self.names[first::count] for first in range(count)]

    def name(self, index: int) -> str:
        """Nodes count from 1."""
        return f"node{index}"

    def namespace(self, index: int) -> str:
        """Name of the node's network namespace, and of its cable's end on the bridge (at most 15 letters)."""
        return f"cpt{self.slot}n{index}"

    def address(self, index: int) -> str:
        """IPv4 address of a node."""
        return f"{self.network}.{index // 250 + 1}.{index % 250 + 1}" if self.isolated else "127.0.0.1"

    def port(self, index: int) -> int:
        """Where a node's slurmd listens."""
        return 6818 if self.isolated else 27_000 + 100 * self.slot + index


@dataclass(frozen=True)
class ClusterFiles:
    """Every path of a cluster below its folder."""

    root: Path

    @property
    def layout(self) -> Path:
        """The `ClusterLayout`; there is a cluster as long as this file is there."""
        return self.root / "cluster.json"

    @property
    def mark(self) -> Path:
        """Says that this folder is a cluster's and may be removed."""
        return self.root / ".cpt-devcluster"

    @property
    def slurm_conf(self) -> Path:
        """What clients export as SLURM_CONF."""
        return self.root / "slurm.conf"

    @property
    def gres_conf(self) -> Path:
        """What SLURM takes for GPUs."""
        return self.root / "gres.conf"

    @property
    def topology_conf(self) -> Path:
        """Switches; SLURM looks for it beside slurm.conf."""
        return self.root / "topology.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        """slurmdbd looks for it beside slurm.conf."""
        return self.root / "slurmdbd.conf"

    @property
    def prolog(self) -> Path:
        """Runs on each node before a job; fails on a node that is flagged."""
        return self.root / "prolog.sh"

    @property
    def health(self) -> Path:
        """Runs on each node every few seconds; drains a node that is flagged."""
        return self.root / "health.sh"

    @property
    def database(self) -> Path:
        """MariaDB's data folder."""
        return self.root / "db"

    @property
    def database_socket(self) -> Path:
        """The only way to the database."""
        return self.root / "run" / "db.sock"

    @property
    def hosts(self) -> Path:
        """/etc/hosts of every node."""
        return self.root / "hosts"

    @property
    def key(self) -> Path:
        """munge's secret, for this cluster alone."""
        return self.root / "run" / "munge.key"

    @property
    def socket(self) -> Path:
        """munge's socket."""
        return self.root / "run" / "munge.sock"

    def bad(self, node: str, kind: str) -> Path:
        """The flag that makes a node fail in one way."""
        return self.root / "bad" / f"{node}.{kind}"

    def gpu(self, index: int) -> Path:
        """A device file that stands for a GPU."""
        return self.root / "dev" / f"gpu{index}"

    def pid(self, daemon: str) -> Path:
        """The `ProcessRecord` of a daemon or node."""
        return self.root / "run" / f"{daemon}.json"

    def log(self, daemon: str) -> Path:
        """What a daemon says."""
        return self.root / "log" / f"{daemon}.log"

    def folders(self) -> list[Path]:
        """Made before anything starts."""
        return [self.root / name for name in ("state", "log", "spool", "run", "bad", "dev")]


def hosts(layout: ClusterLayout) -> str:
    """/etc/hosts as the nodes see it; the machine's own file is never touched."""
    lines = ["127.0.0.1 localhost", f"{layout.gateway if layout.isolated else '127.0.0.1'} login"]
    lines += [f"{layout.address(index)} {layout.name(index)}" for index in range(1, layout.nodes + 1)]
    return "\n".join(lines) + "\n"
