"""Pictures of wires: they are drawn for every recorded node, and show the difference that they claim."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from PIL import Image

from cpt.report import topology_picture
from cpt.topology.adapters import parse_ibstat
from cpt.topology.fabric import Fabric, Kind
from cpt.topology.layout import Layout
from cpt.topology.machine import Machine, machine
from cpt.topology.matrix import parse_matrix
from cpt.topology.placement import by_name, order

RECORDED = Path(__file__).parents[1] / "topology/recorded"


def colors(png: bytes) -> set[tuple[int, int, int]]:
    """Those that fill something: more than text's edges do."""
    found = Image.open(io.BytesIO(png)).convert("RGB").getcolors(1 << 24)
    assert found is not None
    return {color for count, color in found if count > 300}  # type: ignore[misc]


def rgb(text: str) -> tuple[int, int, int]:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


@pytest.mark.parametrize("name", ["dgx_h100", "hgx_h100", "vm_phb", "vm_pairs", "vm_hidden"])
def test_a_node(name: str) -> None:
    ibstat = RECORDED / name / "ibstat.txt"
    found = machine(parse_matrix((RECORDED / name / "topo.txt").read_text()), parse_ibstat(ibstat.read_text()) if ibstat.exists() else ())
    shown = colors(topology_picture.node(found))
    assert {rgb(topology_picture._ROLES[nic.role]) for nic in found.nics} <= shown


def test_a_node_without_anything() -> None:
    assert topology_picture.node(Machine()).startswith(b"\x89PNG")


def test_a_fabric_before_and_after() -> None:
    names = [f"node{n}" for n in range(1, 33)]
    random.Random(2).shuffle(names)
    wires = Fabric(kind=Kind.tree, paths={name: ("spine", f"leaf{n // 8}") for n, name in enumerate(names)})
    layout = Layout(tp=8, pp=4, dp=6)
    ours = by_name(names)[:26]
    own = order(ours, wires, layout)
    png = topology_picture.fabric({"by name": ours, "ordered": own}, wires, layout)
    assert {rgb(color) for color in (*topology_picture._PIPELINES[:6], topology_picture._SPARE)} <= colors(png)
    assert rgb(topology_picture._PIPELINES[6]) not in colors(png)
    stages = topology_picture.fabric({"ordered": own}, wires, layout, "stage")
    assert {rgb(color) for color in topology_picture._STAGES[:4]} <= colors(stages)


def test_a_fabric_that_nobody_knows() -> None:
    assert topology_picture.fabric({"as given": ["a", "b"]}, Fabric(), Layout(tp=8, dp=2)).startswith(b"\x89PNG")
