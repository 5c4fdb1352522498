"""Where one development cluster keeps its files, names and addresses; and its slurm.conf as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpt.core.artifacts import Artifact

CPUS = 16
"""Declared per node, far more than there are: ranks of a rehearsal share the machine's cores."""
MEMORY = 64_000
"""Declared per node, MB; nothing is confined to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterLayout(Artifact):
    """One cluster (`cluster.json`). Two clusters on a machine differ in `slot`, which is in every name, address and port."""

    slot: int
    nodes: int
    isolated: bool
    """True: each node has its own network, host name and process tree. False: process tree only, all on loopback."""

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
    def names(self) -> list[str]:
        """All nodes, in order."""
        return [self.name(index) for index in range(1, self.nodes + 1)]

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

    def pid(self, daemon: str) -> Path:
        """The `ProcessRecord` of a daemon or node."""
        return self.root / "run" / f"{daemon}.json"

    def log(self, daemon: str) -> Path:
        """What a daemon says."""
        return self.root / "log" / f"{daemon}.log"

    def folders(self) -> list[Path]:
        """Made before anything starts."""
        return [self.root / name for name in ("state", "log", "spool", "run")]


def hosts(layout: ClusterLayout) -> str:
    """/etc/hosts as the nodes see it; the machine's own file is never touched."""
    lines = ["127.0.0.1 localhost", f"{layout.gateway if layout.isolated else '127.0.0.1'} login"]
    lines += [f"{layout.address(index)} {layout.name(index)}" for index in range(1, layout.nodes + 1)]
    return "\n".join(lines) + "\n"


def slurm_conf(layout: ClusterLayout, files: ClusterFiles) -> str:
    """Settings for quick recovery; each was needed by a real failure on such a cluster."""
    head = f"login({layout.gateway})" if layout.isolated else "localhost"
    nodes = [_node(layout, index) for index in range(1, layout.nodes + 1)]
    return "\n".join([_SETTINGS.format(head=head, port=layout.controller_port, root=files.root, socket=files.socket).strip(), *nodes, _PARTITION, ""])


def _node(layout: ClusterLayout, index: int) -> str:
    where = f"NodeAddr={layout.address(index)}" if layout.isolated else "NodeHostname=localhost"
    return f"NodeName={layout.name(index)} {where} Port={layout.port(index)} CPUs={CPUS} RealMemory={MEMORY} State=UNKNOWN"


_PARTITION = "PartitionName=train Nodes=ALL Default=YES MaxTime=INFINITE State=UP"

_SETTINGS = """
ClusterName=cptdev
SlurmctldHost={head}
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
# A requeued job waits as long as its old credential lives, plus one second; less than 5 is ignored.
AuthInfo=socket={socket},cred_expire=5
StateSaveLocation={root}/state
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/%n.pid
SlurmdSpoolDir={root}/spool/%n
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
# The daemons run at a better priority than the ranks, which take what the submitter has; else a busy node looks dead.
PropagatePrioProcess=1
# A node that lost power is down after two to three times this, in seconds, and comes back by itself.
SlurmdTimeout=5
ReturnToService=2
SlurmctldTimeout=15
MessageTimeout=5
TCPTimeout=1
InactiveLimit=0
KillWait=5
# Shorter, and SLURM drains healthy nodes that wait for the dead one.
UnkillableStepTimeout=180
MinJobAge=3600
JobRequeue=1
SchedulerParameters=batch_sched_delay=1,sched_min_interval=0,bf_interval=2,bf_resolution=1
"""
