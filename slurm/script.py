"""RunConfig -> the text that sbatch gets. Pure; its twins are in tests/golden, so a change to what nodes execute shows up in review."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.running import Runtime
from cpt.core.artifacts import sha256_json
from cpt.core.paths import RunPaths
from cpt.topology import Hint
from slurm.container import inside, variable

TEMPLATE = Path(__file__).with_name("run.sbatch")

WHERE = ("qos", "reservation", "constraint", "nodelist")
"""Those of `slurm.extra` that say where a job may run, and so hold for a preflight's job too."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a submission comes from: the interpreter that its ranks use, and the folder that its relative paths start at."""

    python: str = sys.executable
    folder: Path = field(default_factory=Path.cwd)


def render(config: RunConfig, run: RunPaths, origin: Origin, rank_command: Sequence[str] = (), hint: Hint | None = None) -> str:
    """The batch script of one run. `rank_command` as in `rank_argv`, `hint` from `slurm.submit.compact`.

    Raises `UserError` for folders that its container cannot mount.
    """
    spares = f" and {config.slurm.spare_nodes} spare" if config.slurm.spare_nodes else ""
    return _fill(
        TEMPLATE.read_text(),
        {
            "title": _comment(f"{config.name}: {config.slurm.nodes}{spares} nodes x {config.slurm.tasks_per_node} ranks, by `cpt launch`"),
            "directives": "\n".join(_directives(config, run, origin, hint)),
            "run": shlex.quote(str(run.root)),
            "python": shlex.quote(origin.python),
            "setup": "\n".join(setup(config)),
            "step": " \\\n  ".join(shlex.join(line) for line in _rank_lines(config, run, origin, rank_command)),
        },
    )


def rank_step(config: RunConfig, run: RunPaths, python: str, rank_command: Sequence[str] = ()) -> list[str]:
    """From `srun` to the last word of what every rank executes. `--nodelist` and `--output` go right behind `srun`, where the supervisor puts them.

    All GPUs of a node stay visible to each of its ranks (`--gpus-per-node` of the job, no `--gpus-per-task`): NCCL reaches a neighbor's
    memory over NVLink only through a device that the process can see, and `local_rank` picks the rank's own.
    """
    return [word for line in _rank_lines(config, run, Origin(python=python), rank_command) for word in line]


def preflight_step(config: RunConfig, run: RunPaths, python: str) -> list[str]:
    """From `srun` to `preflight --node`: one task per node, where ranks would run. How many nodes and which, `slurm.preflight` puts behind `srun`.

    A node that fails must not take the reports of the others with it, so no task's end ends another's.
    """
    how = ["srun", "--overlap", "--kill-on-bad-exit=0", "--wait=0", "--export=ALL"]
    how_many = ["--ntasks-per-node=1", f"--cpus-per-task={config.slurm.cpus_per_task}"]
    return [*how, *how_many, *(word for line in inside(config, Path.cwd()) for word in line), *node_argv(run, _python(config, python))]


def rank_argv(run: RunPaths, python: str = sys.executable, rank_command: Sequence[str] = ()) -> list[str]:
    """What every rank executes. `rank_command` stands in for training (rehearsals without torch); the run directory comes last."""
    return [*(rank_command or (python, "-m", "jobs.cli", "train", "--run")), str(run.root)]


def node_argv(run: RunPaths, python: str = sys.executable) -> list[str]:
    """What every node executes in a preflight; the number of the attempt comes behind it."""
    return [python, "-m", "jobs.cli", "preflight", "--node", "--run", str(run.root)]


def job_name(run: RunPaths) -> str:
    """One name per run directory, wherever it lies: with `--dependency=singleton` two jobs of it never run at the same time."""
    return f"{run.root.name}.{sha256_json(str(run.root))[:6]}"


def placement(config: RunConfig) -> dict[str, str]:
    """Options of sbatch and salloc that say where a job runs, spares included, by long name; an empty value is a switch."""
    cluster, slurm = config.cluster, config.slurm
    most = slurm.nodes + slurm.spare_nodes
    options = {"nodes": f"{slurm.nodes}-{most}" if slurm.spare_nodes else str(most)}
    if most > 1:  # the loss of a node ends its ranks, not the job; of a lone node it must end the job, for nobody is left to notice
        options["no-kill"] = ""
    if slurm.tasks_per_node > 1:  # said of one task, SLURM takes the fewest nodes of a range instead of the most
        options["ntasks-per-node"] = str(slurm.tasks_per_node)
    if cluster.gpus_per_node:
        options |= {"gpus-per-node": str(cluster.gpus_per_node), "exclusive": ""}
    options |= {name: value for name, value in (("partition", cluster.partition), ("account", cluster.account)) if value}
    if slurm.exclude:
        options["exclude"] = ",".join(slurm.exclude)
    return options | {name: value for name, value in slurm.extra.items() if name in WHERE}


def _directives(config: RunConfig, run: RunPaths, origin: Origin, hint: Hint | None) -> Iterator[str]:
    """The hint's stand last, below the reason for them; what the user says in `slurm.extra` wins."""
    slurm = config.slurm
    options: dict[str, str] = {
        "requeue" if slurm.requeue else "no-requeue": "",
        "job-name": job_name(run),
        "dependency": "singleton",
        "chdir": str(origin.folder),
        "output": str(run.job_log).replace("%", "%%"),
        "open-mode": "append",
        **placement(config),
        "cpus-per-task": str(slurm.cpus_per_task),
        "time": slurm.time,
        "signal": f"B:USR2@{slurm.signal_lead}",
    }
    hinted = {name: value for name, value in (hint.options if hint else {}).items() if name not in slurm.extra}
    own = {name: value for name, value in (options | slurm.extra).items() if name not in hinted}
    yield from (_directive(name, value) for name, value in own.items())
    if hint and hinted:
        yield f"# {_comment(hint.why)}"
        yield from (_directive(name, value) for name, value in hinted.items())


def _directive(name: str, value: str) -> str:
    return f"#SBATCH --{name}={shlex.quote(value)}" if value else f"#SBATCH --{name}"


def setup(config: RunConfig) -> Iterator[str]:
    """Shell lines before anything else: variables, then what the site asks for. Secrets by name: a script that lacks one ends here."""
    yield "trap '' USR2 # SLURM may send its signal before the supervisor listens; then the ranks' own deadline says the same"
    variables = environment(config)
    if config.cluster.slurm_conf:
        variables = {"SLURM_CONF": config.cluster.slurm_conf} | variables
    reasons = _reasons(config)
    yield from (f"export {name}={_quoted(value)}{reasons.get(name, '')}" for name, value in variables.items())
    yield from config.cluster.setup
    yield from (f': "${{{name}:?is one of cluster.secrets, export it before sbatch}}"' for name in config.cluster.secrets)


def _reasons(config: RunConfig) -> dict[str, str]:
    """Comments behind variables. A value that the cluster has put in place of the fabric's does not have the fabric's reason."""
    fabric, cluster = config.fabric, config.cluster.environment
    other = {name for name, value in fabric.environment.items() if cluster.get(name, value) != value}
    return {variable(config, name): f" # {_comment(why)}" for name, why in fabric.reasons.items() if why.strip() and name not in other}


def environment(config: RunConfig) -> dict[str, str]:
    """What every rank gets beside the submitter's environment: threads as it has cores, and the site's own facts."""
    own = {"OMP_NUM_THREADS": str(config.slurm.cpus_per_task), "PYTHONUNBUFFERED": "1"} | config.fabric.environment | config.cluster.environment
    return {variable(config, name): value for name, value in own.items()}


def _rank_lines(config: RunConfig, run: RunPaths, origin: Origin, rank_command: Sequence[str]) -> list[list[str]]:
    """`rank_step` in the lines of the script. `--cpus-per-task` again, because srun has stopped taking it from the job."""
    cluster, slurm = config.cluster, config.slurm
    how = ["srun", "--overlap", "--kill-on-bad-exit=1", "--wait=0", "--export=ALL"]
    how_many = [f"--nodes={slurm.nodes}", f"--ntasks={slurm.world_size}", f"--ntasks-per-node={slurm.tasks_per_node}", f"--cpus-per-task={slurm.cpus_per_task}"]
    bound = [f"--{name}={value}" for name, value in (("cpu-bind", cluster.cpu_bind), ("mem-bind", cluster.mem_bind)) if value]
    command = rank_argv(run, _python(config, origin.python), rank_command)
    return [line for line in (how, how_many, bound, *inside(config, origin.folder), command) if line]


def _python(config: RunConfig, python: str) -> str:
    return python if config.cluster.runtime is Runtime.bare else config.cluster.rank_python


def _quoted(value: str) -> str:
    """For the right side of an assignment, where `==value` would be legal and look like a mistake."""
    text = shlex.quote(value)
    return f"'{text}'" if text.startswith("=") else text


def _comment(text: str) -> str:
    return " ".join(text.split())


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each `@name@`, once, so that nothing inside a value is taken for a name."""
    return re.sub(r"@([a-z]+)@", lambda found: values[found.group(1)], template)
