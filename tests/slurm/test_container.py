"""What stands between srun and a rank, executed: fake programs on the path write down what they got."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.config.running import Runtime
from cpt.core.errors import UserError
from cpt.core.paths import RunPaths
from slurm.container import inside
from slurm.script import Origin, preflight_step, rank_step, render

NASTY = "a b'c\"d $(touch pwned) `id` %t \\ ; & * ~\nlast"

FAKES = {
    # Its own options, then the command.
    "srun": "at = next(i for i, word in enumerate(words) if not word.startswith('-'))\nnote('srun', words[:at])\nos.execvp(words[at], words[at:])",
    # exec, its own options, an image, then the command; APPTAINERENV_X becomes X, as apptainer does it.
    "apptainer": """assert words[0] == 'exec'
at = next(i for i, word in enumerate(words[1:], 1) if not word.startswith('-'))
note('apptainer', words[1:at + 1])
for name in [name for name in os.environ if name.startswith('APPTAINERENV_')]:
    os.environ[name.removeprefix('APPTAINERENV_')] = os.environ.pop(name)
os.execvp(words[at + 1], words[at + 1:])""",
    # In place of the supervisor: the srun line that it would start.
    "supervisor": "at = words.index('--')\nnote('supervisor', words[:at])\nos.execvp(words[at + 1], words[at + 1:])",
    "rank": "note('rank', words)\nnote('environment', dict(os.environ))",
}


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in FAKES.items():
        note = f"def note(key, value):\n    open(os.path.join({str(tmp_path)!r}, key + '.json'), 'w').write(json.dumps(value))\n"
        (folder / name).write_text(f"#!{sys.executable}\nimport json, os, sys\nwords = sys.argv[1:]\n{note}{body}\n")
        (folder / name).chmod(0o755)
    return folder


def config_of(runtime: Runtime, tmp_path: Path) -> RunConfig:
    config = compose_config(["experiment=demo", "cluster.secrets=[HF_TOKEN]", "fabric=ethernet"], validated=False)
    config.run_root = str(tmp_path / ("runs" if runtime is Runtime.pyxis else "runs of 'mine' $(touch pwned)"))
    config.cluster.runtime = runtime
    config.cluster.image = "" if runtime is Runtime.bare else f"/images/{NASTY}"
    config.cluster.mounts = {Runtime.bare: [], Runtime.apptainer: ["/models of $HOME:/models of $HOME:ro"], Runtime.pyxis: ["/models:/models:ro+rprivate"]}[
        runtime
    ]
    config.cluster.environment = {"GREETING": NASTY, "NCCL_IB_HCA": "=mlx5_0,mlx5_1"}
    config.cluster.cpu_bind = "map_ldom:0,0,1"
    return config


def checkout(config: RunConfig, tmp_path: Path) -> Path:
    return tmp_path / ("checkout" if config.cluster.runtime is Runtime.pyxis else "check out")


def execute(config: RunConfig, fakes: Path, tmp_path: Path) -> dict[str, object]:
    """The rendered script, by bash; what each program got."""
    folder = checkout(config, tmp_path)
    folder.mkdir()
    run = RunPaths(Path(config.run_root) / "100% it")
    text = render(config, run, Origin(python=str(fakes / "supervisor"), folder=folder), [str(fakes / "rank"), NASTY, ""])
    variables = {"PATH": f"{fakes}:{os.environ['PATH']}", "HF_TOKEN": "canary", "HOME": "/home/me"}
    done = subprocess.run(["bash", "-c", text], cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("pwned"))
    assert "canary" not in text
    return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}


@pytest.mark.parametrize("runtime", list(Runtime))
def test_arguments_and_variables_arrive_intact(runtime: Runtime, fakes: Path, tmp_path: Path) -> None:
    config = config_of(runtime, tmp_path)
    got = execute(config, fakes, tmp_path)
    assert got["rank"] == [NASTY, "", str(Path(config.run_root) / "100% it")]
    environment = got["environment"]
    assert isinstance(environment, dict)
    assert environment["GREETING"] == NASTY and environment["NCCL_IB_HCA"] == "=mlx5_0,mlx5_1"
    assert environment["NCCL_IB_DISABLE"] == "1", "of the fabric"
    assert environment["HF_TOKEN"] == "canary", "a secret reaches the rank without being written down"
    assert got["supervisor"] == ["-m", "slurm.supervisor", "--run", str(Path(config.run_root) / "100% it")]
    assert {"--nodes=2", "--ntasks-per-node=3", "--cpu-bind=map_ldom:0,0,1"} <= set(got["srun"])  # type: ignore[call-overload]


def test_pyxis_gets_image_mounts_folder_and_names(fakes: Path, tmp_path: Path) -> None:
    config = config_of(Runtime.pyxis, tmp_path)
    folder = checkout(config, tmp_path)
    options = dict(word.split("=", 1) for word in execute(config, fakes, tmp_path)["srun"] if "=" in word)  # type: ignore[attr-defined]
    assert options["--container-image"] == f"/images/{NASTY}"
    assert options["--container-mounts"].split(",") == [f"{folder}:{folder}", f"{config.run_root}:{config.run_root}", "/models:/models:ro+rprivate"]
    assert options["--container-workdir"] == str(folder)
    assert {"HF_TOKEN", "GREETING", "NCCL_IB_DISABLE", "MASTER_ADDR"} <= set(options["--container-env"].split(","))


def test_apptainer_gets_binds_folder_and_image(fakes: Path, tmp_path: Path) -> None:
    config = config_of(Runtime.apptainer, tmp_path)
    folder = checkout(config, tmp_path)
    got = execute(config, fakes, tmp_path)
    binds = [f"--bind={place}" for place in (f"{folder}:{folder}", f"{config.run_root}:{config.run_root}", "/models of $HOME:/models of $HOME:ro")]
    assert got["apptainer"] == [f"--pwd={folder}", *binds, f"/images/{NASTY}"], "no --nv without GPUs"
    config.cluster.gpus_per_node = 8
    assert "--nv" in rank_step(config, RunPaths(Path("/r")), "python")


def test_a_missing_secret_ends_the_script_before_its_ranks(fakes: Path, tmp_path: Path) -> None:
    config = config_of(Runtime.bare, tmp_path)
    text = render(config, RunPaths(tmp_path / "run"), Origin(python=str(fakes / "supervisor"), folder=tmp_path))
    done = subprocess.run(["bash", "-c", text], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "HF_TOKEN: is one of cluster.secrets" in done.stderr
    assert not (tmp_path / "supervisor.json").exists()


def test_weights_that_lie_elsewhere_are_mounted_too(tmp_path: Path) -> None:
    config = config_of(Runtime.apptainer, tmp_path)
    base, elsewhere = config.runs.base(config.model.name), tmp_path / "elsewhere"
    elsewhere.mkdir()
    base.parent.mkdir(parents=True)
    base.symlink_to(elsewhere)
    words = [word for line in inside(config, tmp_path / "checkout") for word in line]
    assert f"--bind={elsewhere}:{elsewhere}" in words
    assert len([word for word in words if word.startswith("--bind")]) == 4, "what lies below a mounted folder is not mounted again"


@pytest.mark.parametrize(
    ("runtime", "folder"),
    [
        (Runtime.apptainer, "/a,b"),
        (Runtime.apptainer, "/a:b"),
        (Runtime.pyxis, "/a,b"),
        (Runtime.pyxis, "/a b"),
        (Runtime.pyxis, "/a$(touch pwned)"),
        (Runtime.pyxis, '/a"b'),
    ],
)
def test_a_folder_that_cannot_be_mounted_is_named(runtime: Runtime, folder: str, tmp_path: Path) -> None:
    """pyxis hands its mounts to a shell on the node, in a list with spaces between."""
    with pytest.raises(UserError, match="would take its mounts apart"):
        inside(config_of(runtime, tmp_path), Path(folder))


def test_a_preflight_runs_where_ranks_run(tmp_path: Path) -> None:
    config, run = config_of(Runtime.apptainer, tmp_path), RunPaths(tmp_path / "run")
    step = preflight_step(config, run, "/venv/bin/python")
    assert step[0] == "srun" and "--ntasks-per-node=1" in step and "--kill-on-bad-exit=0" in step
    assert not [word for word in step if word.startswith(("--nodes", "--ntasks=", "--nodelist", "--output"))], "which nodes is said by who asks"
    assert step[-7:] == ["python3", "-m", "jobs.cli", "preflight", "--node", "--run", str(run.root)]
    config.cluster.runtime = Runtime.bare
    assert preflight_step(config, run, "/venv/bin/python")[-7] == "/venv/bin/python"
