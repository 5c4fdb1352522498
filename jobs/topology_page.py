"""What `cpt topology` shows: a node with its rails, a fabric with what an order of ranks brings on it, and the files that both leave."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cpt.config.fingerprint import fingerprint
from cpt.config.run import RunConfig
from cpt.config.running import Scheduler
from cpt.core.artifacts import write_bytes, write_text
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.core.nodes import fold
from cpt.topology import Fabric, Layout, Machine, Role, by_leaf, by_name, cpu_bind, fabric_yaml, from_scontrol, hint, hops, order, rows, traffic, variables
from cpt.topology import machine as put_together
from cpt.topology.adapters import Port, parse_ibstat
from cpt.topology.fabric import Kind
from cpt.topology.hints import LONG_SEGMENT
from cpt.topology.layout import from_config
from cpt.topology.matrix import Matrix, parse_matrix
from slurm import client


def read(paths: Sequence[Path]) -> tuple[Fabric | None, Machine | None]:
    """Recorded outputs, in any order. Raises `MissingInput`, or `UserError` for a file that is none of them."""
    fabric, matrix, ports = None, None, None
    for path in paths:
        match _parsed(path):
            case Fabric() as found:
                fabric = found
            case Matrix() as found:
                matrix = found
            case found:
                ports = found
    missing = [name for name, known in (("nvidia-smi topo -m", matrix), ("ibstat", ports)) if known is None]
    return fabric, put_together(matrix, ports or (), missing=[f"{name}: not given" for name in missing]) if len(missing) < 2 else None


def ask(config: RunConfig) -> Fabric:
    """What SLURM says. Raises `UserError` when it does not answer."""
    if config.cluster.scheduler is not Scheduler.slurm:
        return Fabric()
    client.require(config.cluster)
    return client.fabric(config.cluster)


def fabric(config: RunConfig, wires: Fabric, console: Console) -> None:
    """Leaves, hops of three orders, SLURM's options, a picture. Raises `UserError` when the run needs more nodes than there are."""
    if wires.kind is Kind.flat:
        console.print(f"SLURM knows no switches on cluster {config.cluster.name}: ranks stay in its own order, and nothing is asked of it")
        return
    layout, sizes, most = from_config(config), traffic(config), config.slurm.nodes + config.slurm.spare_nodes
    nodes = _candidates(config, wires)
    advice = hint(wires, most, client.version(config.cluster) or LONG_SEGMENT, layout.pipeline_nodes, usable=nodes)
    nodes = nodes[:most]
    orders = {"SLURM's": nodes, "by leaf": by_leaf(nodes, wires), "ours": order(nodes, wires, layout, sizes)}
    leaves = wires.leaves()
    held = sorted({len(found) for found in leaves.values()})
    console.print(f"{wires.kind} of {len(leaves)} leaves with {' or '.join(map(str, held))} nodes; as if SLURM gave {fold(nodes)}", soft_wrap=True)
    head, *lines = rows({name: hops(found, wires, layout, sizes) for name, found in orders.items()})
    _table(console, f"TP{layout.tp} x CP{layout.cp} x PP{layout.pp} x DP{layout.dp} on {layout.nodes} nodes", head, lines)
    asked = " ".join(f"--{name}={value}" for name, value in advice.options.items()) or "nothing"
    console.print(f"asked of SLURM: {asked} ({advice.why})", soft_wrap=True)
    _draw_fabric(config, wires, layout, {name: orders[name] for name in ("SLURM's", "ours")}, console)


def node(config: RunConfig, found: Machine, console: Console) -> None:
    """GPUs with their rails, adapters with their roles, what NCCL is told, as a table, a picture and a choice of `fabric`."""
    from cpt.report.topology_picture import node as draw

    name, runs = config.cluster.name, config.runs
    gpus = [(str(gpu.index), gpu.rail or "not known", "-" if gpu.numa is None else str(gpu.numa), gpu.cpus or "-") for gpu in found.gpus]
    _table(
        console, f"{len(found.gpus)} GPUs" + (f", {found.nvlinks} NVLinks between any two" if found.nvlinks else ""), ("GPU", "rail", "NUMA node", "CPUs"), gpus
    )
    _table(console, f"{len(found.nics)} adapters, {len(found.having(Role.rail))} of them rails", ("adapter", "role", "Gb/s", "layer", "why"), _adapters(found))
    settings = [(key, value, why) for key, (value, why) in variables(found).items()]
    if bind := cpu_bind(found):
        settings.append(("cluster.cpu_bind", bind, "each rank on the NUMA node of its GPU"))
    _table(console, "what follows", ("setting", "value", "why"), settings)
    for line in found.missing:
        console.print(f"missing: {line}", soft_wrap=True)
    path = runs.found("fabric", name)
    write_text(path, fabric_yaml(name, found))
    picture = runs.root / "plans" / f"{name}.node.png"
    write_bytes(picture, draw(found))
    console.print(f"fabric={name}: {path}\ndrawn as {picture}", soft_wrap=True)


def _parsed(path: Path) -> Fabric | Matrix | tuple[Port, ...]:
    if not path.is_file():
        raise MissingInput(path=path, why="it should hold what a command printed", fix="nvidia-smi topo -m > topo.txt")
    text = path.read_text(errors="replace")
    if found := from_scontrol(text):
        return found
    if re.search(r"^CA '", text, re.MULTILINE):
        return parse_ibstat(text)
    if re.search(r"\bGPU0\b", text):
        return parse_matrix(text)
    what, why = f"says {text.strip()[:60]!r}", "is none of the outputs that are known here"
    raise UserError(Problem(where=str(path), what=what, why=why, fix="scontrol show topology, nvidia-smi topo -m or ibstat, each into a file"))


def _candidates(config: RunConfig, wires: Fabric) -> list[str]:
    """Nodes that the run may get, as people count: those of its partition, where SLURM answers and means the same nodes."""
    usable = [name for name in client.usable(config.cluster) if name in wires.paths and name not in config.slurm.exclude]
    return by_name(usable or list(wires.paths))


def _adapters(found: Machine) -> Iterator[tuple[str, ...]]:
    for nic in found.nics:
        yield nic.name, nic.role.value, f"{nic.port.rate:g}" if nic.port.rate else "-", nic.port.link_layer or "-", nic.why


def _table(console: Console, title: str, head: Sequence[str], lines: Sequence[tuple[str, ...]] | Iterator[tuple[str, ...]]) -> None:
    table = Table(*head, box=None, title=title, title_justify="left")
    for line in lines:
        table.add_row(*line)
    console.print(table if table.rows else title)


def _draw_fabric(config: RunConfig, wires: Fabric, layout: Layout, orders: dict[str, Sequence[str]], console: Console) -> None:
    from cpt.report.topology_picture import fabric as draw

    path = config.runs.plan(config.name, fingerprint(config)).with_suffix(".fabric.png")
    write_bytes(path, draw(orders, wires, layout))
    console.print(f"drawn as {path}", soft_wrap=True)
