"""How each daemon of a cluster is started: munged, slurmctld, and one slurmd for each node."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence

from cpt.core.artifacts import write_bytes
from cpt.core.errors import CptError
from slurm import process
from slurm.devcluster.layout import ClusterFiles, ClusterLayout
from slurm.devcluster.rights import SEARCH

CONTROLLER = "slurmctld"
MUNGE = "munged"

_FIRST = ("nice", "-n", "-10")

_BOOT = """
mount -t proc proc /proc
if [ -n "$1" ]; then
    hostname "$1"
    ip address replace "$2" dev eth0
    ip link set lo up
    ip link set eth0 up
fi
mount --bind "$3" /etc/hosts
shift 3
"$@" &
wait
"""


def environment(files: ClusterFiles) -> dict[str, str]:
    """For clients and daemons: the caller's, without a job it may itself run in."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    return own | {"SLURM_CONF": str(files.slurm_conf), "PATH": SEARCH}


def client(files: ClusterFiles, *command: str) -> str:
    """What one of SLURM's commands prints. Raises `CptError` with its complaint."""
    done = subprocess.run(command, env=environment(files), capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise CptError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


def spawn(files: ClusterFiles, name: str, command: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
    """A daemon ahead of the ranks in the queue for the machine's cores, found again by `files.pid(name)`."""
    process.spawn([*_FIRST, *command], log=files.root / "log" / f"{name}.out", record=files.pid(name), environment=environment(files) | dict(extra or {}))


def on_login(layout: ClusterLayout, *command: str) -> list[str]:
    """A daemon of the login host goes by that host's name; the machine's own name stays as it is."""
    return ["unshare", "--uts", "sh", "-c", 'hostname login; exec "$@"', "sh", *command] if layout.isolated else list(command)


def start_munge(files: ClusterFiles) -> None:
    """A private key and socket: this cluster trusts nobody else, and the system's own munge stays untouched."""
    write_bytes(files.key, secrets.token_bytes(128))
    files.key.chmod(0o600)
    run = files.root / "run"
    command = ["munged", "--force", f"--socket={files.socket}", f"--key-file={files.key}", f"--pid-file={run}/munged.pid"]
    command += [f"--log-file={files.log(MUNGE)}", f"--seed-file={run}/munge.seed", "--foreground"]
    spawn(files, MUNGE, command)
    process.wait_until(files.socket.exists, what=f"munged, see {files.log(MUNGE)}", timeout=15)


def start_controller(layout: ClusterLayout, files: ClusterFiles) -> None:
    """Takes up the state that an earlier one left in `state/`."""
    spawn(files, CONTROLLER, on_login(layout, CONTROLLER, "-D", "-f", str(files.slurm_conf)))


def start_node(layout: ClusterLayout, files: ClusterFiles, index: int) -> None:
    """One slurmd as the child of a process namespace's init: when that dies, the kernel ends all that runs on the node."""
    name = layout.name(index)
    enter = ["nsenter", f"--net=/run/netns/{layout.namespace(index)}"] if layout.isolated else []
    spaces = ["unshare", *(["--uts"] if layout.isolated else []), "--pid", "--mount", "--fork", "--kill-child"]
    own = [name, f"{layout.address(index)}/16"] if layout.isolated else ["", ""]
    slurmd = ["slurmd", "-D", "-N", name, "-f", str(files.slurm_conf)]
    spawn(files, name, [*enter, *spaces, "sh", "-c", _BOOT, "sh", *own, str(files.hosts), *slurmd])
