"""What stands between srun and a rank when ranks run in a container. The supervisor and SLURM's own commands run outside."""

from __future__ import annotations

from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.running import Runtime, mount_separators
from cpt.core.errors import Problem, UserError

_MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""enroot's hook for images with PyTorch sets its own otherwise: the same port for every attempt of a job."""


def inside(config: RunConfig, folder: Path) -> list[list[str]]:
    """More options of srun (pyxis), or the command that executes the rest in an image (apptainer), in readable lines; none for bare ranks.

    `folder`, the checkout, is mounted and entered, so that `python -m jobs.cli` is the same code as outside. Raises `UserError` for
    folders that cannot be mounted.
    """
    match config.cluster.runtime:
        case Runtime.pyxis:
            return _pyxis(config, folder)
        case Runtime.apptainer:
            return _apptainer(config, folder)
        case _:
            return []


def variable(config: RunConfig, name: str) -> str:
    """The name under which a variable is exported outside so that ranks get it, whatever the image sets."""
    return f"APPTAINERENV_{name}" if config.cluster.runtime is Runtime.apptainer else name


def _pyxis(config: RunConfig, folder: Path) -> list[list[str]]:
    """Every exported variable reaches the ranks; those named win over the image's own. Names only: values stay out of process lists."""
    cluster = config.cluster
    names = dict.fromkeys([*_MEETING, "OMP_NUM_THREADS", "PYTHONUNBUFFERED", *config.fabric.environment, *cluster.environment, *cluster.secrets])
    return [
        [f"--container-image={cluster.image}", f"--container-workdir={folder}"],
        [f"--container-mounts={','.join(_mounts(config, folder))}"],
        [f"--container-env={','.join(names)}"],
    ]


def _apptainer(config: RunConfig, folder: Path) -> list[list[str]]:
    """Exported variables, secrets among them, are passed by apptainer itself."""
    gpus = ["--nv"] if config.cluster.gpus_per_node else []
    binds = [f"--bind={mount}" for mount in _mounts(config, folder)]
    return [["apptainer", "exec", *gpus, f"--pwd={folder}"], binds, [config.cluster.image]]


def _mounts(config: RunConfig, folder: Path) -> list[str]:
    """The checkout, the run root, the folders of weights and data, and where links on the way to them lead: each at its own path."""
    runs = config.runs
    places: list[Path] = []
    refused = mount_separators(config.cluster.runtime)
    for path in (folder, runs.root, runs.base(config.model.name), runs.data(config.corpus.name).root):
        for place in (path, path.resolve()):
            if not any(place.is_relative_to(known) for known in places):
                places.append(_mountable(place, refused))
    return [*(f"{place}:{place}" for place in places), *config.cluster.mounts]


def _mountable(path: Path, refused: str) -> Path:
    if found := set(str(path)) & set(refused):
        what = f"has {' '.join(sorted(map(repr, found)))}"
        fix = "run_root=<a folder without>, and a checkout in one"
        raise UserError(Problem(where=str(path), what=what, why="the container runtime would take its mounts apart there", fix=fix))
    return path
