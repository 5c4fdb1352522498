"""What the loop does about an update that should not be made."""

from __future__ import annotations

import torch.distributed as dist

from cpt.config.anomaly import AnomalyAction
from cpt.core.heartbeat import Phase
from cpt.data.position import next_sample
from cpt.engine import StepResult
from cpt.engine.parallel import agree_on
from cpt.train.anomaly import judge
from cpt.train.feed import GlobalBatch
from cpt.train.job import At, Job
from cpt.train.restoring import load


def settle(job: Job, batch: GlobalBatch, result: StepResult, at: At) -> AnomalyAction:
    """Judge the update and do what follows, but for the update itself: `note` means that it is to be made. Collective.

    skip leaves the gradients where they are, to be overwritten. After rollback state and weights are those of an earlier checkpoint. Before
    stop nothing is saved: what is in memory may be what must not be resumed from.
    """
    config, state = job.config.train.anomaly, job.state
    found = judge(config, state, result.loss, result.grad_norm)
    target = 0
    if found and found.action is AnomalyAction.rollback:
        job.savers.finish()
        steps = agree_on(job.savers.full.store.steps())
        if len(steps) < config.rollback_checkpoints:
            found = found.stop(f"there are {len(steps)} checkpoints to go back to (train.anomaly.rollback_checkpoints is {config.rollback_checkpoints})")
        else:
            target = steps[-config.rollback_checkpoints]
    if found:
        job.recorder.anomaly(found, state, batch, result, job.feed.data.documents)
    match found.action if found else AnomalyAction.note:
        case AnomalyAction.rollback:
            at(Phase.start, state.step)  # as long as a load may take
            go_back(job, target, batch.samples.stop)
        case AnomalyAction.skip:
            state.skip(batch.samples)
        case AnomalyAction.stop:
            job.savers.finish()
        case AnomalyAction.note:
            state.remember(result.loss, result.grad_norm, config.window)
    return found.action if found else AnomalyAction.note


def go_back(job: Job, step: int, stop: int) -> None:
    """Load checkpoint `step` in place; samples from its own next one up to `stop` are never read again. Newer checkpoints are set aside, fast ones go.

    A kill before the next save finds the checkpoint as it was, comes to the same update again, and goes back as it did here.
    """
    store, state = job.savers.full.store, job.state
    then, generators = load(job.engine, store, step, job.config.seed)
    then.rollbacks, then.saved_step = state.rollbacks + 1, step
    window = [next_sample(then.consumed_samples, then.skipped), stop]
    then.skipped.append(window)
    state.become(then)
    if dist.get_rank() == 0:
        for newer in store.steps():
            if newer > step:
                store.set_aside(newer, "rolled_back")
    if job.fast:
        job.fast.clear()
        job.recorder.fast_step(None)
    dist.barrier()
    job.recorder.rolled_back(state, store.path(step).name, window, generators)
