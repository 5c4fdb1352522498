"""The loop: read, step, record, evaluate, save, stop."""

from __future__ import annotations

from collections.abc import Callable

import torch

from cpt.config.anomaly import AnomalyAction
from cpt.core.heartbeat import Phase
from cpt.data import row_checksums
from cpt.data.position import next_sample
from cpt.train.job import Job
from cpt.train.journaling import GlobalBatch
from cpt.train.layers import update
from cpt.train.rollback import settle
from cpt.train.stop import StopReason, StopWatch

At = Callable[[Phase, int], None]
"""Told what the loop is about to do and how many steps are done."""


def train(job: Job, watch: StopWatch, at: At) -> StopReason:
    """Train until the budget is spent or all ranks agree to stop, with a complete checkpoint as the last thing done; or until an update must not be made."""
    train_config, state = job.config.train, job.state
    if state.step == 0 and job.config.evaluate.at_start:
        evaluate(job, at)
    while (reason := agree(job, watch)) <= StopReason.save:
        if reason is StopReason.save:
            job.saver.save(state, at)
        at(Phase.step, state.step)
        job.recorder.speed.begin()
        rate = job.history.rate(state.step)
        job.recorder.amended(job.history, state.step)
        batch = read(job)
        job.recorder.speed.lap("data")
        result = job.engine.compute_gradients(batch.tokens, train_config.micro_batch_size)
        job.recorder.speed.lap("forward_backward")
        match settle(job, batch, result, at):
            case AnomalyAction.stop:
                return StopReason.anomaly
            case AnomalyAction.rollback:
                continue
            case AnomalyAction.note:
                update(job, result, rate, asked=reason is StopReason.stats)
                job.recorder.speed.lap("optimizer")
                state.advance(train_config.global_batch_size)
                job.recorder.stepped(state, batch, result, rate, job.data.ledger(state.consumed_samples, state.skipped))
        state.data = job.data.position(state.consumed_samples, state.skipped).as_dict()
        if due(state.step, job.config.evaluate.interval) or state.step == train_config.steps:
            evaluate(job, at)
        if due(state.step, job.config.checkpoint.interval):
            job.saver.save(state, at)
    job.saver.save(state, at)
    job.saver.finish()
    return reason


def read(job: Job) -> GlobalBatch:
    """The next global batch: this replica's rows, and what all ranks know about all rows."""
    start, size = next_sample(job.state.consumed_samples, job.state.skipped), job.config.train.global_batch_size
    rows = job.engine.rows(size)
    tokens = job.data.batch(start + rows.start, start + rows.stop).tokens
    checksums = torch.from_numpy(row_checksums(tokens))
    return GlobalBatch(range(start, start + size), tokens, job.data.sources(start, start + size), job.engine.gather(checksums, (len(rows),), torch.int64))


def agree(job: Job, watch: StopWatch) -> StopReason:
    """What all ranks do now. The same all-reduce tells whether all have written the save that is under way."""
    reason, writing = watch.agree(job.state.step >= job.config.train.steps, job.saver.writing)
    job.saver.poll(writing)
    return reason


def due(step: int, interval: int) -> bool:
    """An interval of 0 is never due."""
    return interval > 0 and step % interval == 0


def evaluate(job: Job, at: At) -> None:
    """Held-out loss of every source, at this step."""
    at(Phase.evaluate, job.state.step)
    values = job.heldout.evaluate(job.engine)
    job.state.domain_loss = values.get("heldout/loss/domain")
    job.recorder.evaluated(job.state, job.state.consumed_samples * job.config.train.sequence_length, values)
