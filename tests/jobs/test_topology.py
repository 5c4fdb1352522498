"""`cpt topology` on recorded outputs: what is shown, and the files that it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.core.errors import MissingInput, UserError
from jobs import topology
from jobs.topology import parse

RECORDED = Path(__file__).parents[1] / "topology/recorded"


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert topology.main(arguments) == 0
    return capsys.readouterr().out


def test_a_recorded_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = show(
        capsys, "--read", f"{RECORDED}/slurm/tree.txt", "experiment=ellama_70b", "slurm.nodes=48", "train.global_batch_size=1440", f"run_root={tmp_path}"
    )
    assert "tree of 8 leaves with 8 nodes; as if SLURM gave node[1-48]" in said
    rows = {tuple(line.split()[:2]): line.split()[2:4] for line in said.splitlines() if line.split()[1:2] == ["PP"]}
    assert rows[("SLURM's", "PP")] == ["3.00", "3"] and float(rows[("ours", "PP")][0]) < 2
    assert "asked of SLURM: --switches=6@1:00:00 (48 nodes fit on 6 of 8 leaf switches" in said
    (picture,) = (tmp_path / "plans").glob("ellama_70b-*.fabric.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_recorded_node_becomes_a_choice_of_fabric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RECORDED / "dgx_h100"
    said = show(capsys, f"run_root={tmp_path}", "--read", f"{folder}/ibstat.txt", f"{folder}/topo.txt", "cluster=h100_ib")
    assert "12 adapters, 8 of them rails" in said and "map_ldom:0,0,0,0,1,1,1,1" in said
    assert (tmp_path / "plans/h100_ib.node.png").read_bytes().startswith(b"\x89PNG")
    config = compose_config([f"run_root={tmp_path}", "fabric=h100_ib", "train.train_tokens=81920"])
    assert config.fabric.environment["NCCL_IB_HCA"] == "=mlx5_0,mlx5_3,mlx5_4,mlx5_5,mlx5_6,mlx5_9,mlx5_10,mlx5_11"
    assert config.fabric.reasons["NCCL_IB_HCA"].startswith("compute rails only") and "TORCH_NCCL_DUMP_ON_TIMEOUT" in config.fabric.reasons


def test_half_of_a_node_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing: ibstat: not given" in show(capsys, "--read", f"{RECORDED}/vm_phb/topo.txt", f"run_root={tmp_path}")


def test_a_machine_without_anything_is_a_fact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "fabric=local: " in show(capsys, "--node", "cluster=local", f"run_root={tmp_path}")
    assert "SLURM knows no switches" in show(capsys, "cluster=local", f"run_root={tmp_path}")


def test_files_and_overrides_in_any_order(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.txt"
    odd.touch()
    options, overrides = parse(["model=tiny", "--read", str(odd), "gone.txt", "cluster=local"])
    assert (options.read, overrides) == ([odd, Path("gone.txt")], ["model=tiny", "cluster=local"])


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        topology.main(["--read", str(tmp_path / "gone.txt")])
    (tmp_path / "other.txt").write_text("Filesystem Size Used\n")
    with pytest.raises(UserError, match="none of the outputs"):
        topology.main(["--read", str(tmp_path / "other.txt")])
