"""The update; and what it does to each layer, when that is due or somebody touched `triggers/stats`."""

from __future__ import annotations

from cpt.engine import StepResult
from cpt.engine.layers import LayerWatch
from cpt.train.due import due
from cpt.train.job import Job


def update(job: Job, result: StepResult, rate: float, asked: bool) -> None:
    """Change the weights by `result` with learning rate `rate`. Watched, it leaves a line for each part of the model in `stats/`. Collective."""
    interval, step = job.config.train.stats_interval, job.state.step + 1
    if not (asked or due(step, interval)):
        job.engine.update(result, rate)
        return
    watch = LayerWatch(job.engine)
    job.engine.update(result, rate)
    job.recorder.watched(step, watch.norms())
