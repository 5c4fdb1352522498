"""Everything one rank needs to train, built in order; after this nothing looks at files or config again."""

from __future__ import annotations

from dataclasses import dataclass

from cpt.checkpoint import CheckpointStore, Keep
from cpt.config.run import RunConfig
from cpt.config.schedule import describe, learning_rate
from cpt.core.paths import RunPaths
from cpt.core.records import RunRecord
from cpt.core.world import World
from cpt.data import MixtureDataset, data_fingerprint, open_manifest, open_mixture
from cpt.engine import Engine
from cpt.plan.flops import flops_per_token
from cpt.train.heldout import Heldout
from cpt.train.journaling import Recorder, Say
from cpt.train.restoring import restore
from cpt.train.saving import Saver
from cpt.train.speed import Speedometer
from cpt.train.state import TrainState


@dataclass(frozen=True)
class Job:
    """One rank's attempt. All parts are the same on every rank except what the engine holds."""

    config: RunConfig
    run: RunPaths
    engine: Engine
    data: MixtureDataset
    heldout: Heldout
    saver: Saver
    recorder: Recorder
    state: TrainState


def build_job(run: RunPaths, config: RunConfig, world: World, attempt: int, say: Say) -> Job:
    """Open data, build the engine, then the newest complete checkpoint, or the base through its gate."""
    manifest = open_manifest(config)
    record = RunRecord.load(run.run)
    data = open_mixture(config, manifest, record.mixture)
    engine = Engine(config.model, config.parallel, config.train.precision, config.optimizer, config.train.hidden_dropout)
    speed = Speedometer(flops_per_token(config.model, config.train.sequence_length), config.cluster.peak_flops, world.world_size)
    recorder = Recorder(run, attempt, world, data.names, speed, say)
    keep = config.checkpoint
    store = CheckpointStore(run.checkpoints, Keep(last=keep.keep_last, every=keep.keep_every, best=keep.keep_best), data_fingerprint(record.mixture, config))
    state = restore(engine, store, config, recorder)
    steps, peak, schedule = config.train.steps, config.peak_lr, config.schedule
    recorder.scheduled(describe(steps, peak, schedule), *(learning_rate(state.step + ahead, steps, peak, schedule) for ahead in (0, 1)))
    saver = Saver(engine, store, recorder, config.checkpoint.asynchronous)
    return Job(config, run, engine, data, Heldout(config, manifest), saver, recorder, state)
