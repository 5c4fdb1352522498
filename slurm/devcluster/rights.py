"""Whether this machine and this user can run a development cluster, and how well its nodes can be told apart."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid

SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
"""Daemons lie where the PATH of many a shell does not look."""

_PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "sinfo", "unshare", "nsenter")


def can_run() -> tuple[bool, str]:
    """(possible, why not): root, the programs, and the right to make process namespaces. The reason is one line."""
    if os.geteuid() != 0:
        return False, "a SLURM of several nodes on one machine needs root"
    if missing := [name for name in _PROGRAMS if shutil.which(name, path=SEARCH) is None]:
        return False, f"not installed: {' '.join(missing)} (Debian: apt-get install slurm-wlm munge iproute2)"
    if not _works("unshare", "--uts", "--pid", "--mount", "--fork", "--kill-child", "true"):
        return False, "the kernel does not allow process namespaces here"
    return True, ""


def can_isolate() -> bool:
    """Whether nodes can have networks of their own: network namespaces, a bridge, cables between."""
    if shutil.which("ip", path=SEARCH) is None:
        return False
    name = f"cpt{uuid.uuid4().hex[:8]}"
    try:
        return _works("ip", "netns", "add", name) and _works("ip", "link", "add", name, "type", "bridge")
    finally:
        _works("ip", "link", "del", name)
        _works("ip", "netns", "del", name)


def _works(*command: str) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=os.environ | {"PATH": SEARCH}).returncode == 0
