"""The texts that SLURM reads: slurm.conf, gres.conf, topology.conf, slurmdbd.conf, and the two scripts that make a flagged node fail (pure)."""

from __future__ import annotations

import shlex
from pathlib import Path

from slurm.devcluster.layout import ClusterFiles, ClusterLayout

CPUS = 128
"""Declared per node, far more than there are: ranks of a rehearsal share the machine's cores."""
GPUS = 8
"""Declared per node; there are none. A job that asks for them is accepted and placed as on a real node."""
MEMORY = 64_000
"""Declared per node, MB; nothing is confined to it."""
CLUSTER = "cptdev"
"""The cluster's name, as accounting knows it."""

_LARGE = 30
"""From so many nodes on, one machine answers for them so slowly that SLURM must wait longer before it calls one dead."""


def slurm_conf(layout: ClusterLayout, files: ClusterFiles) -> str:
    """Settings for quick recovery; each was needed by a real failure on such a cluster."""
    head = f"login({layout.gateway})" if layout.isolated else "localhost"
    large = layout.nodes >= _LARGE
    seconds = {"down": 10, "message": 10, "tcp": 2, "health": 10} if large else {"down": 5, "message": 5, "tcp": 1, "health": 5}
    settings = _SETTINGS.format(cluster=CLUSTER, head=head, port=layout.controller_port, root=files.root, files=files, **seconds)
    accounting = [_ACCOUNTING.format(host=database_host(layout), port=layout.accounting_port, socket=files.socket)] if layout.accounting else []
    switches = ["TopologyPlugin=topology/tree"] if layout.leaf else []
    return "\n".join([settings, *accounting, *switches, *(_node(layout, index) for index in range(1, layout.nodes + 1)), _PARTITIONS])


def gres_conf(layout: ClusterLayout, files: ClusterFiles) -> str:
    """Every node has the same device files, and none of them is a GPU."""
    return f"NodeName=node[1-{layout.nodes}] Name=gpu File={files.root}/dev/gpu[0-{GPUS - 1}]\n"


def topology_conf(layout: ClusterLayout) -> str:
    """Leaf switches below one spine; there are none, all nodes hang on one bridge."""
    leaves = [f"SwitchName=leaf{number} Nodes={','.join(names)}" for number, names in enumerate(layout.leaves(), 1)]
    return "\n".join([*leaves, f"SwitchName=spine Switches={','.join(f'leaf{number}' for number in range(1, len(leaves) + 1))}"]) + "\n"


def prolog(files: ClusterFiles) -> str:
    """Exit code 1 makes SLURM drain the node and put the job back into the queue."""
    return f'#!/bin/sh\n[ ! -e {shlex.quote(str(files.root))}/bad/"$SLURMD_NODENAME".prolog ]\n'


def health(files: ClusterFiles, search: str) -> str:
    """A health check drains its node itself. It must cost next to nothing: every node of the machine runs it."""
    return _HEALTH.format(flags=shlex.quote(f"{files.root}/bad"), conf=shlex.quote(str(files.slurm_conf)), search=shlex.quote(search))


def slurmdbd_conf(layout: ClusterLayout, files: ClusterFiles, plugins: Path) -> str:
    """`plugins` is the folder of the database plug-in; the others lie where the machine's own SLURM has them."""
    return _SLURMDBD.format(
        name="login" if layout.isolated else "localhost",
        host=database_host(layout),
        port=layout.accounting_port,
        files=files,
        root=files.root,
        plugins=f"{plugins}:/{plugins.relative_to(plugins.parents[3])}",
    )


def database_host(layout: ClusterLayout) -> str:
    """Where nodes reach slurmdbd."""
    return layout.gateway if layout.isolated else "127.0.0.1"


def _node(layout: ClusterLayout, index: int) -> str:
    where = f"NodeAddr={layout.address(index)}" if layout.isolated else "NodeHostname=localhost"
    return f"NodeName={layout.name(index)} {where} Port={layout.port(index)} CPUs={CPUS} RealMemory={MEMORY} Gres=gpu:{GPUS} State=UNKNOWN"


_PARTITIONS = """\
PartitionName=train Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""

_SETTINGS = """
ClusterName={cluster}
SlurmctldHost={head}
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
# A requeued job waits as long as its old credential lives, plus one second; less than 5 is ignored.
AuthInfo=socket={files.socket},cred_expire=5
StateSaveLocation={root}/state
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/%n.pid
SlurmdSpoolDir={root}/spool/%n
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
# The daemons run at a better priority than the ranks, which take what the submitter has; else a busy node looks dead.
PropagatePrioProcess=1
# A node that lost power is down after two to three times this, in seconds, and comes back by itself.
SlurmdTimeout={down}
ReturnToService=2
SlurmctldTimeout=15
MessageTimeout={message}
TCPTimeout={tcp}
InactiveLimit=0
KillWait=5
# Shorter, and SLURM drains healthy nodes that wait for the dead one.
UnkillableStepTimeout=180
MinJobAge=3600
JobRequeue=1
# A job of the partition `urgent` takes nodes from jobs of `train`: those get their --signal first, and the grace time to save.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
# A prolog that fails drains its node and requeues the job, which would otherwise be held.
Prolog={files.prolog}
PrologFlags=Alloc
HealthCheckProgram={files.health}
HealthCheckInterval={health}
HealthCheckNodeState=ANY
SchedulerParameters=batch_sched_delay=1,sched_min_interval=0,bf_interval=2,bf_resolution=1,nohold_on_prolog_fail
"""

_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort={port}
# Without it, clients look for the system's munge.
AccountingStoragePass={socket}
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
"""

_HEALTH = """\
#!/bin/sh
[ -e {flags}/"$SLURMD_NODENAME".health ] || exit 0
PATH={search} SLURM_CONF={conf} exec scontrol update nodename="$SLURMD_NODENAME" state=drain reason="health check failed"
"""

_SLURMDBD = """\
AuthType=auth/munge
AuthInfo=socket={files.socket}
DbdHost={name}
DbdAddr={host}
DbdPort={port}
SlurmUser=root
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
PluginDir={plugins}
"""
