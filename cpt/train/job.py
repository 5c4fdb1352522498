"""Everything one rank needs to train, built in order; after this nothing looks at files or config again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cpt.checkpoint import CheckpointStore, Keep
from cpt.config.history import History, read_history
from cpt.config.run import RunConfig
from cpt.config.schedule import describe
from cpt.core.amendments import segments
from cpt.core.heartbeat import Phase
from cpt.core.paths import RunPaths
from cpt.core.records import RunRecord
from cpt.core.world import World
from cpt.data import open_manifest, open_mixture
from cpt.engine import Engine
from cpt.plan.flops import flops_per_token
from cpt.train.attention import choose_kernel, forward_plan
from cpt.train.fast import FastSaver, FastTier, fast_tier
from cpt.train.feed import Feed
from cpt.train.heldout import Heldout
from cpt.train.journaling import Recorder, Say
from cpt.train.loaders import require_installed
from cpt.train.restoring import restore
from cpt.train.saving import Saver, Savers
from cpt.train.speed import Speedometer
from cpt.train.state import TrainState

At = Callable[[Phase, int], None]
"""Told what a rank is about to do and how many steps are done."""


@dataclass(frozen=True)
class Job:
    """One rank's attempt. All parts are the same on every rank except what the engine holds."""

    config: RunConfig
    history: History
    run: RunPaths
    engine: Engine
    feed: Feed
    heldout: Heldout
    savers: Savers
    fast: FastTier | None
    recorder: Recorder
    state: TrainState


def build_job(run: RunPaths, config: RunConfig, world: World, attempt: int, say: Say) -> Job:
    """Open data, then the engine that trains, from the newest complete checkpoint or from the base through its gate."""
    require_installed(config.loader)
    manifest, history = open_manifest(config), read_history(run)
    data = open_mixture(config, manifest, segments(RunRecord.load(run.run).mixture, history.amendments))
    forward = forward_plan(config, choose_kernel(config, run, world), manifest)
    speed = Speedometer(flops_per_token(config.model, config.train.sequence_length), config.cluster.hardware.peak_flops, world.world_size)
    recorder = Recorder(run, attempt, world, data.names, speed, say)
    keep = config.checkpoint
    store = CheckpointStore(run.checkpoints, Keep(last=keep.keep_last, every=keep.keep_every, best=keep.keep_best))
    fast = fast_tier(run, config, world, attempt, len(history.amendments))
    engine, state = restore(store, fast, data, config, forward, recorder)
    sealed = history.in_force(state.step)[0]
    described = describe(sealed.train.steps, sealed.peak_lr, sealed.schedule)
    recorder.scheduled(described, history.rate(state.step), history.rate(state.step + 1))
    fast_saver = FastSaver(engine, fast, recorder, keep.asynchronous) if fast else None
    savers = Savers(Saver(engine, store, recorder, keep.asynchronous), fast_saver)
    return Job(config, history, run, engine, Feed(data, engine, config), Heldout(config, manifest), savers, fast, recorder, state)
