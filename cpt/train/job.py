"""Everything one rank needs to train, built in order; after this nothing looks at files or config again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpt.checkpoint import CheckpointStore, sharded
from cpt.config.run import RunConfig
from cpt.core.paths import RunPaths
from cpt.core.records import RunRecord
from cpt.core.world import World
from cpt.data import MixtureDataset, data_fingerprint, open_manifest, open_mixture, require_same_data
from cpt.engine import Engine
from cpt.engine.parallel import agree_on
from cpt.train.gate import load_base
from cpt.train.heldout import Heldout
from cpt.train.journaling import Recorder, Say
from cpt.train.state import TrainState


@dataclass(frozen=True)
class Job:
    """One rank's attempt. All parts are the same on every rank except what the engine holds."""

    config: RunConfig
    run: RunPaths
    engine: Engine
    data: MixtureDataset
    heldout: Heldout
    store: CheckpointStore
    recorder: Recorder
    state: TrainState


def build_job(run: RunPaths, config: RunConfig, world: World, attempt: int, say: Say) -> Job:
    """Open data, build the engine, then the newest complete checkpoint, or the base through its gate."""
    manifest = open_manifest(config)
    record = RunRecord.load(run.run)
    data = open_mixture(config, manifest, record.mixture)
    engine = Engine(config.model, config.parallel, config.train.precision, config.optimizer)
    recorder = Recorder(run, attempt, world, data.names, say)
    store = CheckpointStore(run.checkpoints, config.checkpoint.keep_last, data_fingerprint(record.mixture, config))
    state = restore(engine, store, config, recorder)
    return Job(config, run, engine, data, Heldout(config, manifest), store, recorder, state)


def restore(engine: Engine, store: CheckpointStore, config: RunConfig, recorder: Recorder) -> TrainState:
    """Resume (same run, all state) when there is a complete checkpoint, else initialize from the base.

    Raises `UserError` when the checkpoint was trained on other data than this store's.
    """
    step = agree_on(store.latest())
    recorder.begin(step or 0, engine.describe())
    if step is None:
        recorder.parity(load_base(engine, config, _base(config)))
        return TrainState()
    if recorder.journal:
        store.announce()
    require_same_data(recorder.run, step, store.record(step).data, store.data)
    state = TrainState.from_state_dict(sharded.load(store.check(step), engine.chunks, engine.optimizer))
    recorder.resumed(state, store.path(step).name)
    return state


def _base(config: RunConfig) -> Path:
    return config.runs.base(config.model.name)
