"""Start, stop, and pull the plug of single nodes. Everything that runs is found again by recorded pid."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cpt.core.artifacts import write_bytes, write_text
from cpt.core.errors import CptError, Problem, UserError
from slurm import process
from slurm.devcluster.layout import ClusterFiles, ClusterLayout, hosts, slurm_conf
from slurm.devcluster.rights import SEARCH, can_isolate, can_run

_CONTROLLER = "slurmctld"
_MUNGE = "munged"
_SLOTS = 20


@dataclass(frozen=True)
class DevCluster:
    """The cluster whose files lie in `root`; the folder alone says everything about it."""

    root: Path

    @property
    def files(self) -> ClusterFiles:
        """Where its files lie."""
        return ClusterFiles(self.root)

    @property
    def layout(self) -> ClusterLayout:
        """Raises `UserError` when there is no cluster here."""
        if not self.files.layout.is_file():
            raise UserError(Problem(where=str(self.root), what="no cluster here", why="it was never started", fix="cpt devcluster start"))
        return ClusterLayout.load(self.files.layout)

    @property
    def environment(self) -> dict[str, str]:
        """For clients and daemons: the caller's, without a job it may itself run in."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        return own | {"SLURM_CONF": str(self.files.slurm_conf), "PATH": SEARCH}

    def is_running(self) -> bool:
        """Whether the controller lives; nodes may be off."""
        return process.is_running(self.files.pid(_CONTROLLER))

    def start(self, nodes: int = 3, *, timeout: float = 60.0) -> bool:
        """Bring up a controller and `nodes` idle nodes. False when it runs already, then dead nodes are switched on. Raises `UserError` without the right to."""
        if self.is_running():
            for node in self.layout.names:
                self.up(node)
            return False
        possible, why = can_run()
        if not possible:
            raise UserError(Problem(where="cpt devcluster", what="cannot run here", why=why, fix="cluster=local runs without SLURM"))
        self.stop()
        self._own_root()
        try:
            self._start_daemons(nodes)
            process.wait_until(lambda: len(self.idle()) == nodes, what=f"{nodes} idle nodes, see {self.root}/log", timeout=timeout)
        except BaseException:
            self.stop(keep_logs=True)
            raise
        return True

    def stop(self, *, keep_logs: bool = False) -> None:
        """End every daemon and remove networks and files; nothing is left behind, whatever state it was in."""
        if not self.files.layout.is_file():
            return
        layout = self.layout
        for index in range(1, layout.nodes + 1):
            process.end(self.files.pid(layout.name(index)), signal.SIGKILL)
        process.end(self.files.pid(_CONTROLLER), signal.SIGTERM)
        process.end(self.files.pid(_MUNGE), signal.SIGTERM)
        if layout.isolated:
            _remove_network(layout)
        self.files.layout.unlink()
        if not keep_logs:
            shutil.rmtree(self.root)

    def status(self) -> dict[str, str]:
        """Node -> SLURM's state of it (`idle`, `mixed`, `down*`, ...)."""
        lines = self._client("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def idle(self) -> list[str]:
        """Nodes that could start a job now."""
        try:
            return sorted(node for node, state in self.status().items() if state == "idle")
        except CptError:  # the controller does not answer yet
            return []

    def kill(self, node: str) -> None:
        """Power loss: every process of that node dies in the same instant, and its cable goes dead without a word."""
        index = self._index(node)
        process.end(self.files.pid(node), signal.SIGKILL)
        if self.layout.isolated:
            _ip("link", "set", self.layout.namespace(index), "down")

    def up(self, node: str) -> None:
        """Switch a node on. SLURM takes it back by itself about a second after."""
        index = self._index(node)
        if process.is_running(self.files.pid(node)):
            return
        if self.layout.isolated:
            _ip("link", "set", self.layout.namespace(index), "up")
        self._start_node(self.layout, index)

    def _index(self, node: str) -> int:
        names = self.layout.names
        if node not in names:
            raise UserError(Problem(where="node", what=node, why="no such node in this cluster", fix=" or ".join(names)))
        return names.index(node) + 1

    def _own_root(self) -> None:
        """`stop` removes the whole folder: it must be ours, not one that held something before."""
        if self.root.is_dir() and any(self.root.iterdir()) and not self.files.mark.is_file():
            raise UserError(
                Problem(
                    where="CPT_DEVCLUSTER", what=f"{self.root} holds other files", why="the cluster's folder is removed when it stops", fix="an empty folder"
                )
            )
        write_text(self.files.mark, "made by cpt devcluster\n")

    def _start_daemons(self, nodes: int) -> None:
        isolated = can_isolate()
        for folder in self.files.folders():
            folder.mkdir(parents=True, exist_ok=True)
        layout = self._claim(nodes, isolated)
        write_text(self.files.hosts, hosts(layout))
        write_text(self.files.slurm_conf, slurm_conf(layout, self.files))
        self._start_munge()
        name_it = ["unshare", "--uts", "sh", "-c", 'hostname login; exec "$@"', "sh"] if isolated else []
        self._spawn([*name_it, *_FIRST, _CONTROLLER, "-D", "-f", str(self.files.slurm_conf)], _CONTROLLER)
        for index in range(1, nodes + 1):
            if isolated:
                _plug_in(layout, index)
            self._start_node(layout, index)

    def _claim(self, nodes: int, isolated: bool) -> ClusterLayout:
        """Take the first free slot; the bridge is the lock when there is one, the controller's port when not."""
        for slot in range(_SLOTS):
            layout = ClusterLayout(slot=slot, nodes=nodes, isolated=isolated)
            if _port_free(layout.controller_port) and (not isolated or _make_bridge(layout)):
                layout.save(self.files.layout)
                return layout
        raise CptError(f"{_SLOTS} clusters run on this machine already")

    def _start_munge(self) -> None:
        """A private key and socket: this cluster trusts nobody else, and the system's own munge stays untouched."""
        write_bytes(self.files.key, secrets.token_bytes(128))
        self.files.key.chmod(0o600)
        run = self.root / "run"
        command = ["munged", "--force", f"--socket={self.files.socket}", f"--key-file={self.files.key}", f"--pid-file={run}/munged.pid"]
        command += [f"--log-file={self.files.log(_MUNGE)}", f"--seed-file={run}/munge.seed", "--foreground"]
        self._spawn([*_FIRST, *command], _MUNGE)
        process.wait_until(self.files.socket.exists, what=f"munged, see {self.files.log(_MUNGE)}", timeout=15)

    def _start_node(self, layout: ClusterLayout, index: int) -> None:
        """One slurmd as the child of a process namespace's init: when that dies, the kernel ends all that runs on the node."""
        name = layout.name(index)
        enter = ["nsenter", f"--net=/run/netns/{layout.namespace(index)}"] if layout.isolated else []
        spaces = ["unshare", *(["--uts"] if layout.isolated else []), "--pid", "--mount", "--fork", "--kill-child"]
        arguments = [name if layout.isolated else "", str(self.files.hosts), *_FIRST, "slurmd", "-D", "-N", name, "-f", str(self.files.slurm_conf)]
        self._spawn([*enter, *spaces, "sh", "-c", _BOOT, "sh", *arguments], name)

    def _spawn(self, command: list[str], name: str) -> None:
        process.spawn(command, log=self.root / "log" / f"{name}.out", record=self.files.pid(name), environment=self.environment)

    def _client(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise CptError(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout


_FIRST = ("nice", "-n", "-10")

_BOOT = """
mount -t proc proc /proc
[ -z "$1" ] || hostname "$1"
mount --bind "$2" /etc/hosts
shift 2
"$@" &
wait
"""


def _port_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def _make_bridge(layout: ClusterLayout) -> bool:
    """False when the name or the network is taken."""
    if f"{layout.network}." in _ip("-4", "route") or not _try_ip("link", "add", layout.bridge, "type", "bridge"):
        return False
    _ip("address", "add", f"{layout.gateway}/16", "dev", layout.bridge)
    _ip("link", "set", layout.bridge, "up")
    return True


def _plug_in(layout: ClusterLayout, index: int) -> None:
    """A network namespace for one node, and a cable from it to the bridge."""
    space = layout.namespace(index)
    _ip("netns", "add", space)
    _ip("link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", space, "master", layout.bridge, "up")
    _ip("-n", space, "address", "add", f"{layout.address(index)}/16", "dev", "eth0")
    _ip("-n", space, "link", "set", "eth0", "up")
    _ip("-n", space, "link", "set", "lo", "up")


def _remove_network(layout: ClusterLayout) -> None:
    for index in range(1, layout.nodes + 1):
        _try_ip("link", "del", layout.namespace(index))
        _try_ip("netns", "del", layout.namespace(index))
    _try_ip("link", "del", layout.bridge)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], env=os.environ | {"PATH": SEARCH}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CptError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _try_ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], env=os.environ | {"PATH": SEARCH}, capture_output=True, check=False).returncode == 0
