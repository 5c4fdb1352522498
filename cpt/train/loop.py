"""The loop: read, step, record, evaluate, save, stop."""

from __future__ import annotations

from cpt.config.anomaly import AnomalyAction
from cpt.core.heartbeat import Phase
from cpt.train.due import evaluate, follow_up
from cpt.train.job import At, Job
from cpt.train.layers import update
from cpt.train.rollback import settle
from cpt.train.stop import StopReason, StopWatch


def train(job: Job, watch: StopWatch, at: At) -> StopReason:
    """Train until the budget is spent or all ranks agree to stop, with a complete checkpoint as the last thing done; or until an update must not be made."""
    if job.state.step == 0 and job.config.evaluate.at_start:
        evaluate(job, at)
    while (reason := agree(job, watch)) <= StopReason.save:
        if reason is StopReason.save:
            job.savers.full.save(job.state, at)
        match step(job, at, watched=reason is StopReason.stats):
            case AnomalyAction.stop:
                return StopReason.anomaly
            case AnomalyAction.note | AnomalyAction.skip:
                follow_up(job, at)
    job.savers.full.save(job.state, at)
    job.savers.finish()
    return reason


def step(job: Job, at: At, watched: bool) -> AnomalyAction:
    """Read, compute, judge, update, record. Returns what was done about the update: only after `note` were the weights changed by it."""
    config, state, speed = job.config.train, job.state, job.recorder.speed
    at(Phase.step, state.step)
    speed.begin()
    rate = job.history.rate(state.step)
    job.recorder.amended(job.history, state.step)
    batch = job.feed.next(state)
    speed.lap("data")
    result = job.engine.compute_gradients(batch.tokens, config.micro_batch_size)
    speed.lap("forward_backward")
    if (action := settle(job, batch, result, at)) is AnomalyAction.note:
        update(job, result, rate, watched)
        speed.lap("optimizer")
        state.advance(config.global_batch_size)
        job.recorder.stepped(state, batch, result, rate, job.feed.ledger(state))
    job.feed.note(state)
    return action


def agree(job: Job, watch: StopWatch) -> StopReason:
    """What all ranks do now. The same all-reduce tells whether all have written the saves that are under way."""
    reason, writing = watch.agree(job.state.step >= job.config.train.steps, job.savers.writing)
    job.savers.poll(writing)
    return reason
