"""Each parser on each recorded output, and on text that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.core.errors import UserError
from cpt.topology.adapters import parse_ibstat, read_sysfs
from cpt.topology.matrix import domains, links, nearest, parse_matrix
from cpt.topology.names import expand, natural

RECORDED = Path(__file__).parent / "recorded"
NODES = sorted(path.parent.name for path in RECORDED.glob("*/topo.txt"))


def recorded(path: str) -> str:
    return (RECORDED / path).read_text()


def port(root: Path, adapter: str, layer: str, rate: str = "400 Gb/sec (4X NDR)", state: str = "4: ACTIVE", gids: tuple[tuple[str, str], ...] = ()) -> None:
    """A port as the kernel shows it; `gids` are (type, address)."""
    folder = root / "sys/class/infiniband" / adapter
    place = folder / "ports/1"
    (place / "gid_attrs/types").mkdir(parents=True)
    (place / "gids").mkdir()
    (folder / "device/net" / f"e{adapter}").mkdir(parents=True)
    files = {"state": state, "phys_state": "5: LinkUp" if "ACTIVE" in state else "3: Disabled", "rate": rate, "link_layer": layer}
    for name, text in files.items():
        (place / name).write_text(text + "\n")
    for index, (kind, address) in enumerate(gids):
        (place / "gid_attrs/types" / str(index)).write_text(kind + "\n")
        (place / "gids" / str(index)).write_text(address + "\n")
    (folder / "node_guid").write_text("a088:c203:007e:1dba\n")
    (folder / "fw_ver").write_text("28.42.1000\n")
    (folder / "hca_type").write_text("MT4129\n")


@pytest.mark.parametrize("name", NODES)
def test_every_recorded_matrix_is_read_whole(name: str) -> None:
    matrix = parse_matrix(recorded(f"{name}/topo.txt"))
    assert matrix.gpus == tuple(f"GPU{index}" for index in range(8))
    assert domains(matrix) == (tuple(range(8)),)  # one NVSwitch
    assert links(matrix) == (12 if name == "vm_phb" else 18)
    assert {matrix.between(gpu, gpu) for gpu in range(8)} == {"X"}
    assert not any(nic.startswith("NIC") for nic in matrix.nics)  # the legend gave names


def test_a_dgx_calls_its_rails_pxb() -> None:
    matrix = parse_matrix(recorded("dgx_h100/topo.txt"))
    assert [nearest(matrix, gpu) for gpu in range(8)] == [[f"mlx5_{n}"] for n in (0, 3, 4, 5, 6, 9, 10, 11)]
    assert (matrix.to_nic(0, "mlx5_0"), matrix.to_nic(0, "mlx5_1"), matrix.to_nic(0, "mlx5_7"), matrix.to_nic(0, "mlx5_99")) == ("PXB", "NODE", "SYS", "")
    assert (matrix.cpus[0], matrix.numa[:5]) == ("0-55,112-167", ("0", "0", "0", "0", "1"))


def test_the_nearest_adapter_comes_first() -> None:
    matrix = parse_matrix(recorded("vm_pairs/topo.txt"))
    assert [nearest(matrix, gpu) for gpu in (0, 1)] == [["mlx5_ib0", "mlx5_ib1"], ["mlx5_ib1", "mlx5_ib0"]]


def test_a_hidden_tree_has_no_near_adapter() -> None:
    matrix = parse_matrix(recorded("vm_phb/topo.txt"))
    assert [nearest(matrix, gpu) for gpu in range(8)] == [[]] * 8
    assert matrix.numa[0] == "0-3"
    assert parse_matrix(recorded("vm_hidden/topo.txt")).nics == ()


def test_colors_and_words_that_are_not_known() -> None:
    text = "\x1b[4m\tGPU0\tGPU1\tmlx5_0\tCPU Affinity\x1b[0m\nGPU0\t X \tNV4\tC2C\t0-7\nGPU1\tNV4\t X \tPIX\t0-7\nmlx5_0\tC2C\tPIX\t X \n"
    matrix = parse_matrix(text)  # an old driver's: adapters by name in the header, no NUMA column
    assert (matrix.nics, matrix.to_nic(0, "mlx5_0"), links(matrix), matrix.numa) == (("mlx5_0",), "C2C", 4, ("", ""))


@pytest.mark.parametrize("text", ["", "No devices were found\n", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", "\x00\x01"])
def test_text_without_a_matrix(text: str) -> None:
    with pytest.raises(UserError, match="has no matrix of GPUs"):
        parse_matrix(text)


def test_a_row_that_was_cut() -> None:
    lines = recorded("dgx_h100/topo.txt").splitlines()
    cut = "\n".join(line[:60] if line.startswith("GPU3") else line for line in lines)
    with pytest.raises(UserError, match="GPU3 has"):
        parse_matrix(cut)


@pytest.mark.parametrize(("name", "ports", "up"), [("dgx_h100", 12, 12), ("hgx_h100", 12, 10), ("hgx_roce", 12, 10), ("vm_pairs", 13, 13), ("vm_phb", 8, 8)])
def test_every_recorded_ibstat_is_read_whole(name: str, ports: int, up: int) -> None:
    found = parse_ibstat(recorded(f"{name}/ibstat.txt"))
    assert (len(found), sum(one.up for one in found)) == (ports, up)
    assert [one.adapter for one in found] == sorted((one.adapter for one in found), key=natural)
    assert all(one.firmware and one.model.startswith("MT") and len(one.guid) == 16 and one.rate for one in found)


def test_a_port_says_what_it_is() -> None:
    first, other = parse_ibstat(recorded("hgx_h100/ibstat.txt"))[:2]
    assert (first.adapter, first.state, first.rate, first.link_layer, first.up) == ("mlx5_0", "Active", 400.0, "InfiniBand", True)
    assert (other.adapter, other.state, other.physical, other.link_layer, other.up) == ("mlx5_1", "Down", "Disabled", "Ethernet", False)


def test_ibstat_that_says_nothing_or_fails() -> None:
    assert parse_ibstat("") == ()
    broken = recorded("vm_phb/ibstat.txt") + "ibpanic: [1323906] main: stat of IB device 'mlx5_8' failed: No such file or directory\n"
    assert len(parse_ibstat(broken)) == 8
    with pytest.raises(UserError, match="is not a list of adapters"):
        parse_ibstat("bash: ibstat: command not found\n")


def test_sysfs_says_the_same_and_the_address_for_roce(tmp_path: Path) -> None:
    link_local, mapped = "fe80:0000:0000:0000:a288:c2ff:fe7e:1dba", "0000:0000:0000:0000:0000:ffff:0a63:5b3b"
    port(tmp_path, "mlx5_10", "Ethernet", gids=(("IB/RoCE v1", link_local), ("RoCE v2", link_local), ("IB/RoCE v1", mapped), ("RoCE v2", mapped)))
    port(tmp_path, "mlx5_2", "InfiniBand", gids=(("IB/RoCE v1", link_local),))
    infiniband, roce = read_sysfs(tmp_path)
    assert (infiniband.adapter, infiniband.up, infiniband.gid_index, infiniband.guid) == ("mlx5_2", True, None, "a088c203007e1dba")
    assert (roce.adapter, roce.state, roce.physical, roce.rate, roce.gid_index, roce.interfaces) == ("mlx5_10", "Active", "LinkUp", 400.0, 3, ("emlx5_10",))
    assert read_sysfs(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node[1-3,05],gpu7", ["node1", "node2", "node3", "node05", "gpu7"]),
        ("a[1-2]b[08-10]", ["a1b08", "a1b09", "a1b10", "a2b08", "a2b09", "a2b10"]),
        ("10.140.71.103,10.140.88.115", ["10.140.71.103", "10.140.88.115"]),
        ("isw1[0100,0102]", ["isw10100", "isw10102"]),
        ("", []),
    ],
)
def test_lists_of_names(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize("text", ["node[1-", "node]1[", "node[3-1]", "node[a-c]", "node[1-9999999]"])
def test_what_is_no_list_of_names(text: str) -> None:
    with pytest.raises(UserError, match="is not a list of names"):
        expand(text)
