"""Start, stop, and break single nodes in every way a real one breaks. Everything that runs is found again by recorded pid."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from cpt.core.artifacts import write_text
from cpt.core.errors import CptError, Problem, UserError
from slurm import process
from slurm.devcluster import accounting as books
from slurm.devcluster import daemons, network, settings
from slurm.devcluster.layout import ClusterFiles, ClusterLayout, hosts
from slurm.devcluster.rights import SEARCH, can_isolate, can_run

KINDS = ("prolog", "health")
"""How a node can be bad: its prolog fails when a job comes, or its health check finds it sick."""

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
        """For its clients: the caller's, without a job it may itself run in."""
        return daemons.environment(self.files)

    def is_running(self) -> bool:
        """Whether the controller lives; nodes may be off."""
        return process.is_running(self.files.pid(daemons.CONTROLLER))

    def start(self, nodes: int = 3, *, accounting: bool = False, leaf: int = 0, timeout: float = 60.0) -> bool:
        """Bring up a controller and `nodes` idle nodes. False when it runs already, then dead nodes are switched on. Raises `UserError` without the right to.

        `leaf` nodes hang on each leaf switch, as SLURM is told; 0 tells it nothing.
        """
        if self.is_running():
            for node in self.layout.names:
                self.up(node)
            return False
        possible, why = can_run()
        if not possible:
            raise UserError(Problem(where="cpt devcluster", what="cannot run here", why=why, fix="cluster=local runs without SLURM"))
        unpacked = books.packages() if accounting else None
        self.stop()
        self._own_root()
        try:
            self._start_daemons(ClusterLayout(slot=0, nodes=nodes, isolated=can_isolate(), accounting=accounting, leaf=leaf), unpacked)
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
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: process.end(self.files.pid(name), signal.SIGKILL), layout.names))
        process.end(self.files.pid(daemons.CONTROLLER), signal.SIGTERM)
        books.stop(self.files)
        process.end(self.files.pid(daemons.MUNGE), signal.SIGTERM)
        if layout.isolated:
            network.remove(layout)
        self.files.layout.unlink()
        if not keep_logs:
            shutil.rmtree(self.root)

    def status(self) -> dict[str, str]:
        """Node -> SLURM's state of it (`idle`, `mixed`, `down*`, ...)."""
        lines = daemons.client(self.files, "sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def idle(self) -> list[str]:
        """Nodes that could start a job now."""
        try:
            return sorted(node for node, state in self.status().items() if state == "idle")
        except CptError:  # the controller does not answer yet
            return []

    def summary(self) -> list[str]:
        """The same for a human, a line for each state: `node[1-62] idle`, with SLURM's reason where a node is down or drained; then the nodes flagged bad."""
        lines = daemons.client(self.files, "sinfo", "--noheader", "--partition=train", "--format=%N|%T|%E").splitlines()
        rows = [line.split("|", 2) for line in lines]
        flags = [path.name.partition(".") for path in sorted((self.root / "bad").iterdir())]
        states = [f"{nodes} {state}" + ("" if reason == "none" else f" ({reason})") for nodes, state, reason in rows]
        return states + [f"{node} is flagged: its {kind} check fails" for node, _, kind in flags]

    def kill(self, node: str) -> None:
        """Power loss: every process of that node dies in the same instant, and its cable goes dead without a word."""
        index = self._index(node)
        process.end(self.files.pid(node), signal.SIGKILL)
        if self.layout.isolated:
            network.cable(self.layout, index, up=False)

    def up(self, node: str) -> None:
        """Switch a node on. SLURM takes it back by itself about a second after."""
        index = self._index(node)
        if process.is_running(self.files.pid(node)):
            return
        if self.layout.isolated:
            network.cable(self.layout, index, up=True)
        daemons.start_node(self.layout, self.files, index)

    def cut(self, node: str) -> None:
        """The network of a node goes dead both ways, while what runs there lives on: a black hole. Raises `UserError` where nodes share one network."""
        network.cable(self.layout, self._with_cable(node), up=False)

    def slow(self, node: str, rate: str = "20mbit") -> None:
        """The network of a node works, at `rate`. Raises `UserError` as `cut`."""
        network.throttle(self.layout, self._with_cable(node), rate)

    def heal(self, node: str) -> None:
        """Undo `cut` and `slow`, and what `kill` did to the cable."""
        network.cable(self.layout, self._with_cable(node), up=True)
        network.throttle(self.layout, self._with_cable(node), "")

    def bad(self, node: str, kind: str = "prolog") -> None:
        """From now on the node fails in one of `KINDS`: SLURM drains it, and requeues a job whose prolog failed."""
        self._index(node)
        if kind not in KINDS:
            raise UserError(Problem(where="kind", what=kind, why="a node can be bad in no such way", fix=" or ".join(KINDS)))
        write_text(self.files.bad(node, kind), "flagged by cpt devcluster\n")

    def good(self, node: str) -> None:
        """Undo every `bad`, and give the node back to SLURM if it was drained."""
        self._index(node)
        for kind in KINDS:
            self.files.bad(node, kind).unlink(missing_ok=True)
        if "drain" in self.status()[node]:
            daemons.client(self.files, "scontrol", "update", f"nodename={node}", "state=resume")

    def stop_controller(self) -> None:
        """slurmctld ends as at an upgrade; nodes and what runs on them go on."""
        process.end(self.files.pid(daemons.CONTROLLER), signal.SIGTERM)

    def start_controller(self) -> None:
        """slurmctld comes back with the state it saved; returns when it answers."""
        daemons.start_controller(self.layout, self.files)
        process.wait_until(self._answers, what=f"slurmctld, see {self.files.log(daemons.CONTROLLER)}", timeout=30)

    def _answers(self) -> bool:
        try:
            return bool(self.status())
        except CptError:
            return False

    def _index(self, node: str) -> int:
        names = self.layout.names
        if node not in names:
            allowed = " or ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"
            raise UserError(Problem(where="node", what=node, why="no such node in this cluster", fix=allowed))
        return names.index(node) + 1

    def _with_cable(self, node: str) -> int:
        index = self._index(node)
        if not self.layout.isolated:
            why = "this machine gives no network namespaces, so all nodes share its loopback and have no cable"
            raise UserError(Problem(where=node, what="its network cannot be cut", why=why, fix=f"cpt devcluster kill {node}"))
        return index

    def _own_root(self) -> None:
        """`stop` removes the whole folder: it must be ours, not one that held something before."""
        if self.root.is_dir() and any(self.root.iterdir()) and not self.files.mark.is_file():
            raise UserError(
                Problem(
                    where="CPT_DEVCLUSTER", what=f"{self.root} holds other files", why="the cluster's folder is removed when it stops", fix="an empty folder"
                )
            )
        write_text(self.files.mark, "made by cpt devcluster\n")

    def _start_daemons(self, wanted: ClusterLayout, unpacked: Path | None) -> None:
        for folder in self.files.folders():
            folder.mkdir(parents=True, exist_ok=True)
        layout = self._claim(wanted)
        self._write_settings(layout)
        daemons.start_munge(self.files)
        if unpacked:
            books.start(layout, self.files, unpacked)
        daemons.start_controller(layout, self.files)
        if layout.isolated:
            network.plug_in(layout)
        for index in range(1, layout.nodes + 1):
            daemons.start_node(layout, self.files, index)

    def _claim(self, wanted: ClusterLayout) -> ClusterLayout:
        """Take the first free slot; the bridge is the lock when there is one, the controller's port when not."""
        for slot in range(_SLOTS):
            layout = replace(wanted, slot=slot)
            if _port_free(layout.controller_port) and (not layout.isolated or network.make_bridge(layout)):
                layout.save(self.files.layout)
                return layout
        raise CptError(f"{_SLOTS} clusters run on this machine already")

    def _write_settings(self, layout: ClusterLayout) -> None:
        files = self.files
        write_text(files.hosts, hosts(layout))
        write_text(files.slurm_conf, settings.slurm_conf(layout, files))
        write_text(files.gres_conf, settings.gres_conf(layout, files))
        if layout.leaf:
            write_text(files.topology_conf, settings.topology_conf(layout))
        for script, text in ((files.prolog, settings.prolog(files)), (files.health, settings.health(files, SEARCH))):
            write_text(script, text)
            script.chmod(0o755)
        for index in range(settings.GPUS):
            if not files.gpu(index).exists():
                os.mknod(files.gpu(index), stat.S_IFCHR | 0o666, os.makedev(1, 3))


def _port_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
