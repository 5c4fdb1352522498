"""Which adapters carry the run, which do not, and what NCCL and srun are told because of it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cpt.config.running import FabricConfig
from cpt.topology.adapters import Port, parse_ibstat
from cpt.topology.discover import discover
from cpt.topology.environment import Site, cpu_bind, fabric_yaml, variables
from cpt.topology.machine import Interface, Machine, Role, machine
from cpt.topology.matrix import parse_matrix

RECORDED = Path(__file__).parent / "recorded"
ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\nbond0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\nib0\t0000000B\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"


def recorded(name: str) -> Machine:
    ibstat = RECORDED / name / "ibstat.txt"
    return machine(parse_matrix((RECORDED / name / "topo.txt").read_text()), parse_ibstat(ibstat.read_text()) if ibstat.exists() else ())


def names(found: Machine, role: Role) -> list[str]:
    return [nic.name for nic in found.having(role)]


def numbered(*numbers: int) -> list[str]:
    return [f"mlx5_{number}" for number in numbers]


@pytest.mark.parametrize(
    ("name", "rails", "storage", "down"),
    [
        ("dgx_h100", numbered(0, 3, 4, 5, 6, 9, 10, 11), numbered(1, 2, 7, 8), []),  # its storage is InfiniBand, too: only nearness tells
        ("hgx_h100", numbered(0, 3, 4, 5, 6, 9, 10, 11), numbered(7, 8), numbered(1, 2)),  # its Ethernet is as near as its rails: only the layer tells
        ("hgx_roce", numbered(0, 1, 2, 5, 6, 7, 8, 11), numbered(3, 9), numbered(4, 10)),
        ("vm_pairs", [f"mlx5_ib{n}" for n in range(8)], [f"mlx5_eth{n}" for n in range(5)], []),
        ("vm_phb", numbered(*range(8)), [], []),
        ("vm_hidden", [], [], []),
    ],
)
def test_roles(name: str, rails: list[str], storage: list[str], down: list[str]) -> None:
    found = recorded(name)
    assert (names(found, Role.rail), names(found, Role.storage), names(found, Role.down)) == (rails, storage, down)
    own = [gpu.rail for gpu in found.gpus]
    assert own == ([None] * 8 if name in ("vm_phb", "vm_hidden") else rails)
    assert found.hidden == (name == "vm_phb")
    assert all(nic.why for nic in found.nics)


def test_storage_says_why_it_is_storage() -> None:
    assert {nic.name: nic.why for nic in recorded("dgx_h100").having(Role.storage)} == dict.fromkeys(numbered(1, 2, 7, 8), "no GPU close")


def test_a_slow_port_beside_a_gpu_is_no_rail() -> None:
    """RoCE rails and management are both Ethernet, and here on the same switch."""
    matrix = parse_matrix((RECORDED / "hgx_h100/topo.txt").read_text())
    ports = [replace(port, link_layer="Ethernet") for port in parse_ibstat((RECORDED / "hgx_h100/ibstat.txt").read_text())]
    found = machine(matrix, ports)
    assert names(found, Role.storage) == numbered(7, 8)
    assert names(found, Role.rail) == numbered(0, 3, 4, 5, 6, 9, 10, 11)


def test_equally_near_adapters_are_shared_out() -> None:
    text = "\tGPU0\tGPU1\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tNV18\tPXB\tPXB\t0-7\t0\nGPU1\tNV18\t X \tPXB\tPXB\t0-7\t0\nNIC Legend:\n  NIC0: a0\n  NIC1: a1\n"
    assert [gpu.rail for gpu in machine(parse_matrix(text)).gpus] == ["a0", "a1"]


def test_without_ibstat_near_adapters_are_taken_as_up() -> None:
    found = machine(parse_matrix((RECORDED / "dgx_h100/topo.txt").read_text()))
    assert names(found, Role.rail) == numbered(0, 3, 4, 5, 6, 9, 10, 11)


def test_rails_are_matched_exactly_and_said_why() -> None:
    """Without `=`, mlx5_1 would also be mlx5_10 and mlx5_11."""
    value, why = variables(recorded("hgx_h100"))["NCCL_IB_HCA"]
    assert value == "=mlx5_0,mlx5_3,mlx5_4,mlx5_5,mlx5_6,mlx5_9,mlx5_10,mlx5_11"
    assert why == "compute rails only, one for each GPU; left out: mlx5_1 mlx5_2 (down, disabled), mlx5_7 mlx5_8 (Ethernet beside InfiniBand)"


def test_a_second_port_is_named() -> None:
    found = machine(None, [Port(adapter="mlx5_0", number=number, state="Active", rate=200, link_layer="InfiniBand") for number in (1, 2)])
    assert variables(found)["NCCL_IB_HCA"][0] == "=mlx5_0,mlx5_0:2"


def test_nothing_is_set_that_nobody_said() -> None:
    assert list(variables(recorded("dgx_h100"))) == ["NCCL_IB_HCA"]
    assert variables(recorded("vm_hidden")) == {}
    site = Site(sharp=True, ib_timeout=22, ib_retry=7, socket_interface="ib0", gid_index=3, traffic_class=106, topology_file="/opt/topo.xml")
    found = variables(recorded("dgx_h100"), site)
    assert {name: value for name, (value, _) in found.items() if name != "NCCL_IB_HCA"} == {
        "NCCL_SOCKET_IFNAME": "=ib0",
        "NCCL_IB_GID_INDEX": "3",
        "NCCL_IB_TC": "106",
        "NCCL_COLLNET_ENABLE": "1",
        "NCCL_IB_TIMEOUT": "22",
        "NCCL_IB_RETRY_CNT": "7",
        "NCCL_TOPO_FILE": "/opt/topo.xml",
    }


@pytest.mark.parametrize(("indices", "value"), [((3, 3), "3"), ((3, 5), None), ((3, None), None), ((None, None), None)])
def test_one_index_must_be_right_for_every_rail(indices: tuple[int | None, ...], value: str | None) -> None:
    ports = [Port(adapter=f"mlx5_{n}", state="Active", rate=400, link_layer="Ethernet", gid_index=index) for n, index in enumerate(indices)]
    assert variables(machine(None, ports)).get("NCCL_IB_GID_INDEX", (None,))[0] == value


@pytest.mark.parametrize(("rails", "interface"), [(True, "=bond0"), (False, "=eth1")])
def test_ranks_meet_where_the_default_route_goes_and_talk_over_the_fastest(rails: bool, interface: str) -> None:
    interfaces = [
        Interface(name="bond0", up=True, speed=25, default_route=True),
        Interface(name="eth0", up=True, speed=25, part_of="bond0"),
        Interface(name="eth1", up=True, speed=100),
        Interface(name="eth2", up=False, speed=400),
        Interface(name="eth3", up=True, speed=200, part_of="bond1"),
    ]
    ports = [Port(adapter="mlx5_0", state="Active", rate=400, link_layer="InfiniBand")] if rails else []
    assert variables(machine(None, ports, interfaces))["NCCL_SOCKET_IFNAME"][0] == interface


@pytest.mark.parametrize(
    ("name", "bind"),
    [("dgx_h100", "map_ldom:0,0,0,0,1,1,1,1"), ("hgx_roce", ""), ("vm_phb", ""), ("vm_hidden", "")],  # one node, a range, one node
)
def test_ranks_are_bound_only_where_it_is_known(name: str, bind: str) -> None:
    assert cpu_bind(recorded(name)) == bind


@pytest.mark.parametrize("name", ["dgx_h100", "hgx_roce", "vm_phb", "vm_hidden"])
def test_the_file_is_a_fabric(name: str, tmp_path: Path) -> None:
    text = fabric_yaml("ours", recorded(name), Site(sharp=True, topology_file='a "b" \\c'))
    path = tmp_path / "ours.yaml"
    path.write_text(text)
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(loaded, dict)
    assert loaded["defaults"] == ["nccl", "_self_"]
    config = FabricConfig(name=loaded["name"], environment=loaded["environment"], reasons=loaded["reasons"])
    assert not list(config.problems())
    found = variables(recorded(name), Site(sharp=True, topology_file='a "b" \\c'))
    assert {key: (value, config.reasons[key]) for key, value in config.environment.items()} == found and found


def test_a_record_comes_back(tmp_path: Path) -> None:
    recorded("hgx_h100").save(tmp_path / "machine.json")
    assert Machine.load(tmp_path / "machine.json") == recorded("hgx_h100")


def test_a_node_without_any_tool_is_a_fact(tmp_path: Path) -> None:
    def absent(argv: Sequence[str]) -> str:
        raise FileNotFoundError(argv[0])

    found = discover(tmp_path, absent)
    assert (found.gpus, found.nics) == ((), ())
    assert found.missing == ("nvidia-smi: not installed", "no adapter in /sys/class/infiniband, and ibstat: not installed")
    assert "# Not known: nvidia-smi: not installed" in fabric_yaml("ours", found)


def test_a_node_is_discovered(tmp_path: Path) -> None:
    def answer(argv: Sequence[str]) -> str:
        if argv[0] == "ibstat":
            raise subprocess.CalledProcessError(1, argv, "", "ibstat: broken\n")
        return (RECORDED / "vm_hidden/topo.txt").read_text()

    for name, state in (("bond0", "up"), ("eth0", "up"), ("docker0", "up")):
        (tmp_path / "sys/class/net" / name).mkdir(parents=True)
        (tmp_path / "sys/class/net" / name / "operstate").write_text(f"{state}\n")
        (tmp_path / "sys/class/net" / name / "speed").write_text("25000\n" if name != "docker0" else "-1\n")
    (tmp_path / "sys/class/net/bond0/bonding").mkdir()
    (tmp_path / "sys/class/net/eth0/device").mkdir()
    (tmp_path / "sys/class/net/eth0/master").symlink_to(tmp_path / "sys/class/net/bond0")
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(ROUTES)
    found = discover(tmp_path, answer)
    assert len(found.gpus) == 8
    assert found.interfaces == (
        Interface(name="bond0", up=True, speed=25.0, default_route=True),
        Interface(name="eth0", up=True, speed=25.0, part_of="bond0"),
    )
    assert found.missing == ("no adapter in /sys/class/infiniband, and ibstat: ibstat: broken",)
    assert variables(found)["NCCL_SOCKET_IFNAME"][0] == "=bond0"
