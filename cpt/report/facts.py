"""Everything that is known about a run, read once from its files. A missing file is None, a damaged one a warning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.artifacts import Artifact
from cpt.core.attempts import AttemptBegin, AttemptEnd, DrillRecord, StopRecord
from cpt.core.errors import UserError
from cpt.core.manifest import DataManifest
from cpt.core.paths import RunPaths, SweepPaths
from cpt.core.records import EvaluationRecord, ExportRecord, ParityRecord, PlanRecord, RunRecord, SweepRecord, SweepTable
from cpt.evaluate.forgetting import Comparison, LossChange, compare
from cpt.report.attempts import Attempt, read_attempts
from cpt.tracking.goodput import Lifetime
from cpt.tracking.journal import EventRow, MetricRow, read_events, read_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """None means: no stage has left it."""

    run: RunPaths
    config: RunConfig
    record: RunRecord | None
    plan: PlanRecord | None
    manifest: DataManifest | None
    parity: ParityRecord | None
    comparison: Comparison | None
    evaluations: list[EvaluationRecord]
    exported: ExportRecord | None
    stopped: StopRecord | None
    drill: DrillRecord | None
    sweep: SweepTable | None
    sweep_record: SweepRecord | None
    rows: list[MetricRow]
    events: list[EventRow]
    attempts: list[Attempt]
    lifetimes: list[Lifetime]
    """First and last words of attempts, of those that can be read."""
    damaged: list[str]

    @property
    def finished(self) -> bool:
        """Training said so itself."""
        return self.stopped is not None and self.stopped.reason == "done"

    @property
    def groups(self) -> dict[str, str]:
        """Source -> domain or general."""
        return {name: source.group.value for name, source in self.config.corpus.sources.items()}

    def series(self, name: str, superseded: bool = False) -> list[tuple[int, float]]:
        """(step, value) of a metric: the rows that count, or those that were computed again."""
        found = [(row.step, row.values[name]) for row in self.rows if name in row.values and row.superseded is superseded]
        return found if superseded else sorted(dict(found).items())

    def group_change(self, group: str) -> tuple[LossChange | None, str]:
        """Held-out loss of a group before and after, and how it was measured: by `cpt evaluate`, else first and last of training."""
        if self.comparison:
            return next((change for change in self.comparison.groups if change.name == group), None), f"evaluated at step {self.evaluations[-1].step}"
        points = self.series(f"heldout/loss/{group}")
        if len(points) < 2 or points[0][0] != 0:
            return None, ""
        change = LossChange(name=group, group=group, before=points[0][1], after=points[-1][1], bits_before=0.0, bits_after=0.0)
        return change, f"during training, step {points[-1][0]}"

    def forgotten(self) -> tuple[str, float] | None:
        """The general source whose held-out loss rose most, and how much: what `sweep.forgetting_limit` limits."""
        if self.comparison:
            rises = {change.name: change.delta for change in self.comparison.sources if change.group == "general"}
        else:
            found = {name: self.series(f"heldout/loss/{name}") for name, group in self.groups.items() if group == "general"}
            rises = {name: points[-1][1] - points[0][1] for name, points in found.items() if len(points) > 1 and points[0][0] == 0}
        return max(rises.items(), key=lambda item: item[1], default=None)


class _Reader:
    """Loads what is there and remembers what could not be read."""

    def __init__(self) -> None:
        self.damaged: list[str] = []

    def load[T: Artifact](self, kind: type[T], path: Path) -> T | None:
        if not path.exists():
            return None
        try:
            return kind.load(path)
        except UserError as error:
            self.damaged.append(error.problems[0].where + ": " + error.problems[0].what)
            return None

    def lifetimes(self, run: RunPaths) -> list[Lifetime]:
        begun = ((self.load(AttemptBegin, paths.begin), paths) for paths in run.attempts())
        return [(begin, self.load(AttemptEnd, paths.end)) for begin, paths in begun if begin]

    def compare(self, records: list[EvaluationRecord]) -> Comparison | None:
        if len(records) < 2:
            return None
        try:
            return compare(*records)
        except UserError as error:
            self.damaged.append(f"the evaluations before and after cannot be compared: {error.problems[0].what}")
            return None


def read_facts(run: RunPaths, sweep_name: str) -> Facts:
    """`sweep_name` may be empty: then the sweep that the run's command chose from, if any. Raises `UserError` without a config."""
    config, reader = read_config(run.config), _Reader()
    record = reader.load(RunRecord, run.run)
    sweep = _sweep(config, sweep_name or _chosen(record))
    evaluations = [item for label in ("before", "after") if (item := reader.load(EvaluationRecord, run.evaluation(label)))]
    rows, events = read_metrics(run), read_events(run)
    return Facts(
        run=run,
        config=config,
        record=record,
        plan=reader.load(PlanRecord, run.plan),
        manifest=reader.load(DataManifest, config.runs.data(config.corpus.name).manifest),
        parity=reader.load(ParityRecord, run.parity),
        comparison=reader.compare(evaluations),
        evaluations=evaluations,
        exported=reader.load(ExportRecord, run.export_record),
        stopped=reader.load(StopRecord, run.stopped),
        drill=reader.load(DrillRecord, run.drill),
        sweep=reader.load(SweepTable, sweep.table) if sweep else None,
        sweep_record=reader.load(SweepRecord, sweep.sweep) if sweep else None,
        rows=rows,
        events=events,
        attempts=read_attempts(run, rows, events),
        lifetimes=reader.lifetimes(run),
        damaged=reader.damaged,
    )


def _sweep(config: RunConfig, name: str) -> SweepPaths | None:
    return config.runs.sweep(name) if name else None


def _chosen(record: RunRecord | None) -> str:
    """`chosen=<sweep>` in the command that made the run."""
    words = record.command if record else []
    return next((word.removeprefix("chosen=") for word in words if word.startswith("chosen=") and word != "chosen=none"), "")
