"""A real SLURM on one machine: several nodes, a power switch for each.

::

    layout.py   where everything lies, and slurm.conf as text (pure)
    rights.py   can this machine and user run it at all
    cluster.py  start, stop, status, kill, up
"""

from slurm.devcluster.cluster import DevCluster
from slurm.devcluster.rights import can_run

__all__ = ["DevCluster", "can_run"]
