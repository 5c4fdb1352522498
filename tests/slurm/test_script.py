"""What sbatch gets, as text: recorded in tests/golden, checked by shellcheck, safe against odd values.

After a change that is meant: UPDATE_GOLDEN=1 pytest tests/slurm/test_script.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.core.paths import RunPaths
from cpt.topology import Hint, from_scontrol, hint
from slurm.script import TEMPLATE, Origin, job_name, render

ORIGIN = Origin(python="/opt/cpt/.venv/bin/python", folder=Path("/home/me/cpt"))

ROOT = "run_root=/home/me/cpt/runs"

CASES = {
    "demo": ["experiment=demo", ROOT, "cluster.slurm_conf=/tmp/cpt-devcluster/slurm.conf"],
    "ellama_70b": ["experiment=ellama_70b", ROOT],
    "ellama_70b_apptainer": ["experiment=ellama_70b", ROOT, "cluster=h100_ib_apptainer", "slurm.spare_nodes=2", "cluster.secrets=[HF_TOKEN]"],
    "ellama_70b_pyxis": ["experiment=ellama_70b", "run_root=/scratch/me/runs", "cluster=h100_ib_pyxis", "slurm.spare_nodes=2", "cluster.secrets=[HF_TOKEN]"],
    "ellama_70b_tree": ["experiment=ellama_70b", ROOT, "slurm.spare_nodes=2"],
    "odd": ["train.train_tokens=81920", ROOT, "cluster=h100_ib"],
}


def composed(name: str) -> RunConfig:
    """`odd` has values that a shell would take apart, also such as validation refuses."""
    config = compose_config(CASES[name], validated=False)
    if name == "odd":
        config.name = "it's\n$(touch pwned)"
        config.cluster.account = "my lab"
        config.cluster.setup = ["module load cuda/12.8", "source .venv/bin/activate"]
        config.cluster.environment = {"NCCL_IB_HCA": "=mlx5_0,mlx5_1", "GREETING": "it's $HOME; `id`"}
        config.fabric.reasons = {"NCCL_IB_HCA": "it's the rails\"; `id`\n$(touch pwned) \\", "GREETING": " \n"}
        config.slurm.exclude = ["node7", "node9"]
        config.slurm.extra = {"exclusive": "", "comment": "a b"}
    return config


def script(name: str, root: str = "") -> str:
    """`ellama_70b_tree` goes to a cluster of twelve leaf switches with eight nodes each."""
    config = composed(name)
    leaves = "\n".join(f"SwitchName=leaf{leaf} Nodes=node[{8 * leaf - 7}-{8 * leaf}]" for leaf in range(1, 13))
    tree = from_scontrol(f"{leaves}\nSwitchName=spine Switches=leaf[1-12]") if name.endswith("tree") else None
    advice = hint(tree, 62, (22, 5, 8), 4) if tree else None
    return render(config, RunPaths(Path(root or config.run_root) / name), ORIGIN, hint=advice)


@pytest.mark.parametrize("name", CASES)
def test_scripts_are_the_recorded_ones(repository: Path, name: str) -> None:
    golden = repository / "tests" / "golden" / f"{name}.sbatch"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(script(name))
    assert script(name) == golden.read_text()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", CASES)
def test_scripts_pass_shellcheck(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run.sbatch"
    path.write_text(script(name))
    checked = subprocess.run(["shellcheck", "--severity=warning", "--exclude=SC1091", str(path)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_values_reach_the_shell_whole(tmp_path: Path) -> None:
    """The lines before the ranks, executed by bash: nothing of a value is taken for code."""
    text = script("odd", root=f"{tmp_path}/100% 'odd' $(touch pwned)/")
    head = text.partition("exec ")[0].replace("module load", ": module load").replace("source .venv", ": source .venv")
    show = 'printf "%s\\n" "$run" "$python" "$GREETING" "$NCCL_IB_HCA" "$OMP_NUM_THREADS"'
    done = subprocess.run(["bash", "-c", f"{head}\n{show}"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{tmp_path}/100% 'odd' $(touch pwned)/odd",
        "/opt/cpt/.venv/bin/python",
        "it's $HOME; `id`",
        "=mlx5_0,mlx5_1",
        "1",
    ]
    assert not (tmp_path / "pwned").exists()
    assert "#SBATCH --output='" in text and "100%% " in text, "a percent sign is a pattern in the names of SLURM's files"


def test_every_placeholder_of_the_template_is_filled() -> None:
    assert "@run@" in TEMPLATE.read_text()
    assert not any(f"@{name}@" in script("demo") for name in ("title", "directives", "run", "python", "setup", "step"))


def test_what_the_user_says_wins_over_a_hint() -> None:
    config = composed("odd")
    config.slurm.extra = {"switches": "2@10:00"}
    advice = Hint(options={"switches": "8@1:00:00", "nodes": "62"}, why="62 nodes\nfit")
    lines = render(config, RunPaths(Path("/r")), ORIGIN, hint=advice).splitlines()
    assert [line for line in lines if "--switches" in line or ("--nodes" in line and line.startswith("#"))] == [
        "#SBATCH --switches=2@10:00",
        "#SBATCH --nodes=62",
    ]
    assert lines[lines.index("#SBATCH --nodes=62") - 1] == "# 62 nodes fit"
    config.slurm.extra |= {"nodes": "61"}
    text = render(config, RunPaths(Path("/r")), ORIGIN, hint=advice)
    assert "#SBATCH --nodes=61" in text and "62 nodes" not in text


def test_a_value_of_the_cluster_does_not_have_the_fabrics_reason() -> None:
    config = composed("ellama_70b")
    config.cluster.environment = {"TORCH_NCCL_TRACE_BUFFER_SIZE": "1"}
    text = render(config, RunPaths(Path("/r")), ORIGIN)
    assert "export TORCH_NCCL_TRACE_BUFFER_SIZE=1\n" in text and "export TORCH_NCCL_DUMP_ON_TIMEOUT=1 # it " in text


def test_one_name_per_directory() -> None:
    here, there = RunPaths(Path("/a/runs/demo-1")), RunPaths(Path("/b/runs/demo-1"))
    assert job_name(here).startswith("demo-1.") and job_name(here) != job_name(there)


def test_the_rank_command_can_be_replaced() -> None:
    text = render(composed("demo"), RunPaths(Path("/r")), ORIGIN, ["stand in"])
    assert "'stand in' /r\n" in text and "jobs.cli" not in text
