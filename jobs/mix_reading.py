"""What a config would read, or a run reads: its mixture over its samples, amendments included."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cpt.checkpoint import CheckpointStore
from cpt.checkpoint.records import CompleteRecord
from cpt.config.compose import compose_config
from cpt.config.history import read_history
from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.amendments import Amendment, Segment, segments
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.core.manifest import DataManifest
from cpt.core.paths import RunPaths
from cpt.core.records import MixturePlan, RunRecord
from cpt.data.manifest import read_manifest
from cpt.mix import plan_mixture
from jobs.status_answer import locate


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """`run` is None for a config of which there is no run."""

    name: str
    config: RunConfig
    segments: Sequence[Segment]
    run: RunPaths | None = None
    amendments: Sequence[Amendment] = ()

    @property
    def mixture(self) -> MixturePlan:
        """At the end of the run."""
        return self.segments[-1].mixture

    @property
    def manifest(self) -> DataManifest:
        """Of the corpus, without a look at its files. Raises as `read_manifest`."""
        return read_manifest(self.config)

    @property
    def checkpoint(self) -> CompleteRecord | None:
        """The newest of a run."""
        store = CheckpointStore(self.run.checkpoints) if self.run else None
        step = store.latest() if store else None
        return store.record(step) if store and step is not None else None

    @property
    def skipped(self) -> list[list[int]]:
        """Windows of samples that are never trained on, as the newest checkpoint knows them."""
        checkpoint = self.checkpoint
        return checkpoint.train["skipped"] if checkpoint else []


def reading(run: str | None, overrides: Sequence[str]) -> Reading:
    """Of a run, or of a config. Raises `UserError` when both are given."""
    if run is None:
        return _of_config(overrides)
    if overrides:
        why = "a run has its config; what may change in it is changed with cpt resume"
        raise UserError(Problem(where="--run", what=f"is given beside {' '.join(overrides)}", why=why, fix=f"cpt mix diff {run} '<overrides>'"))
    return _of_run(run)


def given(side: str) -> Reading:
    """One side of a comparison: overrides have an equals sign, runs have a directory."""
    return _of_config(shlex.split(side)) if "=" in side and not Path(side).exists() else _of_run(side)


def need(count: int, rest: Sequence[str], what: str, fix: str) -> None:
    """Raises `UserError` unless there are so many arguments."""
    if len(rest) != count:
        raise UserError(Problem(where="cpt mix", what=what, why=f"{len(rest)} were given: {' '.join(map(repr, rest)) or 'none'}", fix=fix))


def _of_config(overrides: Sequence[str]) -> Reading:
    config = compose_config(overrides)
    mixture = plan_mixture(config.mixture, read_manifest(config), config.train.train_tokens, config.train.sequence_length)
    return Reading(name=" ".join(overrides) or config.name, config=config, segments=[Segment(0, mixture)])


def _of_run(name: str) -> Reading:
    run = RunPaths(locate(name))
    if not run.run.is_file():
        raise MissingInput(path=run.run, why="a run directory holds its mixture as launched", fix="a run, not a sweep: its trials are runs in trials/")
    amendments = read_history(run).amendments
    launched = RunRecord.load(run.run).mixture
    return Reading(name=run.root.name, config=read_config(run.config), segments=segments(launched, amendments), run=run, amendments=amendments)
