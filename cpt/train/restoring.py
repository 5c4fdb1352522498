"""Where an attempt begins: the newest checkpoint whose every byte is what was written, or the base through its gate."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from cpt.checkpoint import CheckpointStore, state
from cpt.checkpoint.records import CompleteRecord
from cpt.checkpoint.verify import damage, share
from cpt.config.run import RunConfig
from cpt.core.errors import CptError, Problem, UserError
from cpt.data import MixtureDataset, require_same_data
from cpt.engine import Engine, fusion
from cpt.engine.attention import ForwardPlan
from cpt.engine.parallel import agree_on, describe, seed_generators
from cpt.train.gate import check_base, load_base
from cpt.train.journaling import Recorder
from cpt.train.state import TrainState


def restore(store: CheckpointStore, data: MixtureDataset, config: RunConfig, forward: ForwardPlan, recorder: Recorder) -> tuple[Engine, TrainState]:
    """The engine that trains: resumed (same run, all state) when there is an intact checkpoint, else initialized from the base.

    Raises `UserError` when the checkpoint was trained on other data than this run has read until there, or when all checkpoints are damaged.
    """
    if dist.get_rank() == 0:
        store.tidy()
    step, damaged = newest_intact(store)
    recorder.begin(step or 0, describe(config.parallel), str(forward.kernel), fusion.describe(config.parallel.fusion, config.train.precision))
    for path, files in damaged.items():
        recorder.set_aside(path, files)
    if step is None:
        if damaged:
            raise UserError(_all_damaged(store.folder, list(damaged)))
        data.require_readable(0)
        # Before the engine that trains is built: the gate has one of its own, in fp32, that is gone by then.
        recorder.parity(check_base(config, config.runs.base(config.model.name)))
    engine = Engine(config.model, config.parallel, config.train.precision, config.optimizer, forward)
    if step is None:
        load_base(engine, config, config.runs.base(config.model.name))
        return engine, TrainState()
    record = store.record(step)
    require_same_data(recorder.run, step, record.data, data.position(record.consumed_samples, record.train["skipped"]))
    data.require_readable(record.data.next_sample)
    train, generators = load(engine, store, step, config.seed)
    recorder.resumed(train, store.path(step).name, generators)
    return engine, train


def load(engine: Engine, store: CheckpointStore, step: int, seed: int) -> tuple[TrainState, str]:
    """Put all of checkpoint `step` into the engine; training's numbers, and how random numbers go on. Collective."""
    record = store.record(step)
    state.load(store.path(step), engine.chunks, engine.optimizer, record.optimizer_step)
    return TrainState.from_state_dict(record.train), _restore_generators(engine, store.path(step), record, seed)


def newest_intact(store: CheckpointStore) -> tuple[int | None, dict[str, dict[str, str]]]:
    """(its step, folder -> file -> what is wrong, of newer ones that were set aside). Collective; each rank reads its share of the files."""
    aside: dict[str, dict[str, str]] = {}
    while (step := agree_on(store.latest())) is not None:
        found: list[dict[str, str]] = [{}] * dist.get_world_size()
        dist.all_gather_object(found, _my_damage(store, step))
        if not (files := {name: why for part in found for name, why in part.items()}):
            return step, aside
        aside[agree_on(store.set_aside(step).name if dist.get_rank() == 0 else "")] = files
    return None, aside


def _my_damage(store: CheckpointStore, step: int) -> dict[str, str]:
    try:
        files = store.record(step).files
    except CptError as error:
        return {"complete.json": str(error)}
    mine = share(files, dist.get_rank(), dist.get_world_size())
    return damage(store.path(step), {name: files[name] for name in mine})


def _restore_generators(engine: Engine, folder: Path, record: CompleteRecord, seed: int) -> str:
    """How random numbers go on; dropout on another layout draws other ones, whatever is done."""
    if record.layout == engine.describe():
        state.load_generators(folder, dist.get_rank())
        return "restored"
    seed_generators(seed + record.step)
    return f"seeded anew from (seed {seed}, step {record.step}): {record.layout} wrote the checkpoint"


def _all_damaged(folder: Path, names: list[str]) -> Problem:
    return Problem(
        where=str(folder),
        what=f"every checkpoint is damaged: {', '.join(names)}",
        why="their files are not what was written, and nothing older is left",
        fix=f"bring back a good copy under its old name, or `rm -r {folder}` to start again from the base",
    )
