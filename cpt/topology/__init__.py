"""What wires a run has: inside a node (GPUs, NVLink, adapters, NUMA nodes) and between nodes (switches or blocks); and what follows from it.

`discover` reads this node; `machine` tells compute rails from storage; `environment` turns that into NCCL's variables, each with its reason. `fabric` is
read from SLURM; `placement` orders an allocation's nodes so that neighbors of a run are neighbors in the fabric, `hops` counts what that brought, `seats`
keeps it from attempt to attempt, and `hints` says what to ask SLURM for. Never imports torch.
"""

from cpt.topology.discover import discover
from cpt.topology.environment import Site, cpu_bind, fabric_yaml, variables
from cpt.topology.fabric import Fabric, from_addresses, from_scontrol
from cpt.topology.hints import Hint, hint
from cpt.topology.hops import Hops, KindHops, hops, rows
from cpt.topology.layout import Layout
from cpt.topology.machine import Machine, Role, machine
from cpt.topology.placement import by_leaf, by_name, order, refill
from cpt.topology.seats import Seats, seats
from cpt.topology.traffic import Traffic, traffic

__all__ = [
    "Fabric",
    "Hint",
    "Hops",
    "KindHops",
    "Layout",
    "Machine",
    "Role",
    "Seats",
    "Site",
    "Traffic",
    "by_leaf",
    "by_name",
    "cpu_bind",
    "discover",
    "fabric_yaml",
    "from_addresses",
    "from_scontrol",
    "hint",
    "hops",
    "machine",
    "order",
    "refill",
    "rows",
    "seats",
    "traffic",
    "variables",
]
