"""A real SLURM on one machine: several nodes, each with a power switch, a cable to cut, and checks that can be made to fail.

::

    layout.py      where everything lies; names, addresses, ports (pure)
    settings.py    slurm.conf and what belongs to it, as text (pure)
    rights.py      can this machine and user run it at all
    network.py     a bridge, and a cable to each node
    daemons.py     how munged, slurmctld and each slurmd are started
    accounting.py  slurmdbd and MariaDB, so that sacct answers
    cluster.py     start, stop, status; kill, up, cut, heal, bad, good
"""

from slurm.devcluster.cluster import DevCluster
from slurm.devcluster.rights import can_run

__all__ = ["DevCluster", "can_run"]
