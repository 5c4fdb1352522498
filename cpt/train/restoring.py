"""Where an attempt begins: the newest checkpoint of both tiers whose every byte is what was written, or the base through its gate."""

from __future__ import annotations

from dataclasses import dataclass
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
from cpt.tracking.journal import fast_saves, read_events
from cpt.train.fast import Assembly, FastTier
from cpt.train.gate import check_base, load_base
from cpt.train.journaling import Recorder
from cpt.train.state import TrainState


@dataclass(frozen=True)
class Origin:
    """What this attempt goes on from: a full checkpoint, or a fast one that is put together first; neither for the base."""

    step: int | None
    fast: Assembly | None

    @property
    def newest(self) -> int:
        """0 for the base."""
        return self.fast.part.step if self.fast else self.step or 0


def restore(
    store: CheckpointStore, fast: FastTier | None, data: MixtureDataset, config: RunConfig, forward: ForwardPlan, recorder: Recorder
) -> tuple[Engine, TrainState]:
    """The engine that trains: resumed (same run, all state) when there is an intact checkpoint, else initialized from the base.

    Raises `UserError` when the checkpoint was trained on other data than this run has read until there, or when all checkpoints are damaged.
    """
    origin = _begin(store, fast, config, forward, recorder)
    base = config.runs.base(config.model.name)
    if not origin.newest:
        data.require_readable(0)
        # Before the engine that trains is built: the gate has one of its own, in fp32, that is gone by then.
        recorder.parity(check_base(config, base))
    engine = Engine(config.model, config.parallel, config.train.precision, config.optimizer, forward)
    if not origin.newest:
        load_base(engine, config, base)
        return engine, TrainState()
    fetched = fast.fetch(origin.fast, engine) if fast and origin.fast else None
    source = fast.folder if fast and origin.fast else store
    record = source.record(origin.newest)
    require_same_data(recorder.run, record.step, record.data, data.position(record.consumed_samples, record.train["skipped"]))
    data.require_readable(record.data.next_sample)
    train, generators = load(engine, source, record.step, config.seed)
    recorder.resumed(train, source.path(record.step).name, generators, fetched)
    return engine, train


def _begin(store: CheckpointStore, fast: FastTier | None, config: RunConfig, forward: ForwardPlan, recorder: Recorder) -> Origin:
    """Choose, and open the journal of this attempt with it. What lost the choice on the nodes' disks goes."""
    if dist.get_rank() == 0:
        store.tidy()
    step, damaged = newest_intact(store)
    assembly, search = fast.choose(step or 0, fast_saves(read_events(recorder.run))) if fast else (None, None)
    origin = Origin(step, assembly)
    recorder.begin(origin.newest, describe(config.parallel), str(forward.kernel), fusion.describe(config.parallel.fusion, config.train.precision))
    for path, files in damaged.items():
        recorder.set_aside(path, files)
    if search:
        recorder.searched(search.damaged, search.passed)
    recorder.fast_step(assembly.part.step if assembly else None)
    if assembly is None:
        if fast:
            fast.clear()
        if step is None and damaged:
            raise UserError(_all_damaged(store.folder, list(damaged)))
    return origin


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
