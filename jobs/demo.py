"""`cpt demo [--without-slurm] [overrides]`: the whole job on real text, every step a verb that you can run alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpt.config.compose import compose_config
from cpt.config.fingerprint import fingerprint
from jobs import drill
from jobs.stages import Stages, scheduler
from slurm.devcluster import DevCluster


def main(overrides: Sequence[str]) -> int:
    """0 with report.html written; otherwise the exit code of the stage that failed."""
    slurm, why_local = scheduler("--without-slurm" in overrides)
    extra = ["cluster=devcluster" if slurm else "cluster=local", *(override for override in overrides if not override.startswith("--"))]
    full = ["experiment=demo", *([] if slurm else ["slurm.nodes=1", "slurm.spare_nodes=0", "slurm.tasks_per_node=6"]), *extra]
    config = compose_config(full)
    stages = Stages(config.runs.root)
    stages.say(why_local)
    cluster = DevCluster(Path(config.cluster.slurm_conf).parent) if slurm else None
    starts_cluster = cluster is not None and not cluster.is_running()
    if cluster:
        stages.run("a SLURM of three nodes", "devcluster", "start", "nodes=3")
    stages.run("base weights and parity", "base", *full)
    stages.run("prepare the text", "prepare", *full)
    axes = ["optimizer.lr_ratio=0.03,0.3", "mixture=balanced,domain_heavy"]
    stages.run("submit the sweep", "train", "-m", "experiment=lr_sweep", *axes, *extra)
    stages.run("wait for the sweep", "sweep", "experiment=lr_sweep", "--wait", *extra)
    chosen = [*full, "chosen=lr_sweep"]
    stages.run("plan the full run", "plan", *chosen)
    stages.run("launch the full run", "launch", *chosen)
    config = compose_config(chosen)
    run = config.runs.run(config.name, fingerprint(config))
    with stages.timed("power loss and recovery"):
        if not (run.stopped.is_file() or run.drill.is_file()):
            drill.lose_power(config, run, stages.say)
        drill.wait_until_done(run, stages.say)
    stages.run("evaluate before and after", "evaluate", "--run", str(run.root))
    stages.run("export to Hugging Face", "export", "--run", str(run.root))
    stages.run("copy the journals to MLflow", "sync", str(config.runs.root))
    stages.run("report", "report", "--run", str(run.root))
    if starts_cluster:
        stages.run("stop the SLURM", "devcluster", "stop")
    stages.finish(f"{run.report}")
    return 0
