"""`cpt prepare --submit` and `--status`: the stages of a corpus as a chain of SLURM job arrays, and how far they are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cpt.config.run import RunConfig
from cpt.config.running import Scheduler
from cpt.core.artifacts import Artifact
from cpt.core.errors import EXIT_DONE, EXIT_OURS, Problem, UserError
from cpt.core.units import duration, size
from cpt.corpus.batches import batches
from cpt.corpus.pipeline import Pipeline, Stage, open_pipeline, plan_corpus
from cpt.corpus.prepare import finished, publish
from cpt.corpus.work import alone
from jobs.prepare_page import write_card
from slurm import chain, client

PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class Publish:
    """The last task of a chain: manifest and data card."""

    folder: Path
    """Of the plan."""

    def __call__(self, task: int) -> None:
        """Raises `CptError` when documents were lost, which would be a bug."""
        pipeline = open_pipeline(self.folder)
        publish(pipeline)
        write_card(pipeline.config)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainRecord(Artifact):
    """The last chain that was submitted for a corpus: its jobs are found again by their names."""

    name: str
    links: list[str]


def submit(config: RunConfig, console: Console) -> int:
    """What is missing, unless it is queued already."""
    if config.cluster.scheduler is Scheduler.local:
        raise UserError(Problem(where="cluster.scheduler", what="is local", why="has no queue", fix="cpt prepare without --submit, or a cluster with SLURM"))
    client.require(config.cluster)
    with alone(config.runs.data(config.corpus.name)):
        pipeline = plan_corpus(config)
        if finished(pipeline):
            console.print(f"already prepared, nothing to do: {pipeline.paths.manifest}", soft_wrap=True)
            return EXIT_DONE
        if waiting := chain.queued(config, _name(pipeline), _links(pipeline)):
            console.print(f"already queued: {len(waiting)} tasks, {waiting[0].id} is {waiting[0].state}. {_follow(config)}", soft_wrap=True)
            return EXIT_DONE
        require_idle(config, pipeline)
        pipeline.write()
        work = batches(pipeline, config.slurm.cpus_per_task, chain.MOST_TASKS)
        links = [chain.Link(batch.stage, len(batch.units), batch) for batch in work] + [chain.Link(PUBLISH, 1, Publish(pipeline.folder))]
        ChainRecord(name=_name(pipeline), links=[link.name for link in links]).save(pipeline.paths.chain)
        jobs = chain.submit_chain(config, pipeline.folder / "jobs", _name(pipeline), links)
    for link in links:
        console.print(f"{link.name:>9}  array job {jobs[link.name]}, {link.tasks} task{'s' * (link.tasks > 1)}")
    console.print(_follow(config), soft_wrap=True)
    return EXIT_DONE


def require_idle(config: RunConfig, pipeline: Pipeline) -> None:
    """Raises `UserError` while the same corpus is being made with other settings by SLURM: whoever ends first would remove the other's work."""
    if not pipeline.paths.chain.is_file() or config.cluster.scheduler is Scheduler.local:
        return
    other = ChainRecord.load(pipeline.paths.chain)
    with suppress(client.SlurmFailed):  # whoever submits has asked whether it answers; here nothing depends on it
        waiting = chain.queued(config, other.name, other.links) if other.name != _name(pipeline) else []
        _refuse(config, other, waiting)


def _refuse(config: RunConfig, other: ChainRecord, waiting: Sequence[client.Job]) -> None:
    if waiting:
        what = f"{config.corpus.name} is being prepared with other settings: {len(waiting)} tasks of {other.name} are queued"
        raise UserError(
            Problem(where="corpus.name", what=what, why="both would be the same folder", fix=f"wait, or scancel {waiting[0].id}, or corpus.name=<another>")
        )


def show_status(config: RunConfig, console: Console) -> int:
    """1 when a task has failed and nothing is queued any more."""
    pipeline = plan_corpus(config)
    waiting, queue = _waiting(config, pipeline)
    table = Table(title=f"corpus {config.corpus.name}", title_justify="left")
    for name in ("stage", "units", "done", "speed", "left"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in pipeline.stages:
        table.add_row(stage.name, str(len(stage.records)), *_progress(stage))
    console.print(table)
    console.print(f"queue: {queue}", soft_wrap=True)
    stands = finished(pipeline) is not None
    failed = {} if stands else chain.failures(pipeline.folder / "jobs")
    for task, said in failed.items():
        console.print(f"failed: {task}\n  {said}", style="red", soft_wrap=True)
    console.print(f"prepared: {pipeline.paths.manifest}" if stands else "not prepared yet: what is missing is made by cpt prepare [--submit]", soft_wrap=True)
    return EXIT_OURS if failed and not waiting else EXIT_DONE


def _waiting(config: RunConfig, pipeline: Pipeline) -> tuple[list[client.Job], str]:
    """(tasks that wait or run, in words); without SLURM a corpus is made here, and its files still tell how far it is."""
    if config.cluster.scheduler is Scheduler.local:
        return [], "none, the scheduler is local"
    try:
        found = chain.queued(config, _name(pipeline), _links(pipeline))
    except client.SlurmFailed as error:
        return [], f"SLURM does not answer: {error}"
    states = Counter(job.state for job in found)
    return found, ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "nothing"


def _progress(stage: Stage) -> tuple[str, str, str]:
    """(done, speed, time left), by when units were done."""
    missing = set(stage.missing())
    done = [unit for unit in range(len(stage.records)) if unit not in missing]
    if not done or not missing:
        return str(len(done)), "", ""
    loaded = [stage.kind.load(stage.records[unit]) for unit in done]
    begun = min(stage.records[unit].stat().st_mtime - record.seconds for unit, record in zip(done, loaded, strict=True))
    speed = sum(stage.sizes[unit] for unit in done) / max(1e-3, time.time() - begun)
    return str(len(done)), f"{size(speed)}/s", duration(sum(stage.sizes[unit] for unit in missing) / speed)


def _name(pipeline: Pipeline) -> str:
    """Of its jobs."""
    return f"{pipeline.corpus.name}.{pipeline.keys['tokenize'][:6]}"


def _links(pipeline: Pipeline) -> list[str]:
    return [*(stage.name for stage in pipeline.stages), PUBLISH]


def _follow(config: RunConfig) -> str:
    return f"see: cpt prepare corpus={config.corpus.name} model={config.model.name} --status"
