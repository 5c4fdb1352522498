"""What is done between two updates when its time has come: held-out evaluation, checkpoints."""

from __future__ import annotations

from cpt.core.heartbeat import Phase
from cpt.train.job import At, Job


def follow_up(job: Job, at: At) -> None:
    """What is due at this step."""
    if due(job.state.step, job.config.evaluate.interval) or job.state.step == job.config.train.steps:
        evaluate(job, at)
    if due(job.state.step, job.config.checkpoint.interval):
        job.savers.full.save(job.state, at)
    elif job.savers.fast and due(job.state.step, job.config.checkpoint.fast_interval):
        job.savers.fast.save(job.state, at)


def due(step: int, interval: int) -> bool:
    """An interval of 0 is never due."""
    return interval > 0 and step % interval == 0


def evaluate(job: Job, at: At) -> None:
    """Held-out loss of every source, at this step."""
    at(Phase.evaluate, job.state.step)
    values = job.heldout.evaluate(job.engine)
    job.state.domain_loss = values.get("heldout/loss/domain")
    job.recorder.evaluated(job.state, job.state.consumed_samples * job.config.train.sequence_length, values)
