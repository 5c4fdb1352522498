"""What is done between two updates when its time has come: held-out evaluation, checkpoints."""

from __future__ import annotations

from cpt.core.heartbeat import Phase
from cpt.train.job import At, Job


def follow_up(job: Job, at: At) -> None:
    """What is due at this step. After the last one the loop itself saves in full."""
    step, last, keep = job.state.step, job.config.train.steps, job.config.checkpoint
    if due(step, job.config.evaluate.interval) or step == last:
        evaluate(job, at)
    if due(step, keep.interval):
        job.savers.full.save(job.state, at)
    elif job.savers.fast and due(step, keep.fast_interval) and step < last:
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
