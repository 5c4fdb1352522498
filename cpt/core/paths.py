"""One class knows every path of a run, one of a sweep, one of a corpus. No string arithmetic elsewhere.

::

    runs/                                  RunsRoot(run_root)
      data/<corpus>/                       DataPaths      prepared text, datasets, manifest, benchmarks
      base/<model>/                        Hugging Face folder of the base, and base.json
      plans/<name>-<fingerprint>.json      what `cpt plan` found; a launched run keeps its own
      conf/chosen/<sweep>.yaml             the setting that a sweep chose, composable as `chosen=<sweep>`
      sweeps/<name>/                       SweepPaths     sweep.json, trials/000/ (each a run directory), table.json
      <name>-<fingerprint>/                RunPaths       the whole truth of one run; can restart it alone
      mlflow.db
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunsRoot:
    """Everything that the suite writes lies below `root`."""

    root: Path

    def data(self, corpus: str) -> DataPaths:
        return DataPaths(self.root / "data" / corpus)

    def base(self, model: str) -> Path:
        return self.root / "base" / model

    def run(self, name: str, fingerprint: str) -> RunPaths:
        return RunPaths(self.root / f"{name}-{fingerprint}")

    def sweep(self, name: str) -> SweepPaths:
        return SweepPaths(self.root / "sweeps" / name)

    @property
    def config_folder(self) -> Path:
        """A second place where Hydra looks for groups, filled by `cpt sweep` and `cpt plan`."""
        return self.root / "conf"

    def found(self, group: str, name: str) -> Path:
        """A choice of a group that `cpt plan` found."""
        return self.config_folder / group / f"{name}.yaml"

    def chosen(self, sweep: str) -> Path:
        return self.config_folder / "chosen" / f"{sweep}.yaml"

    def plan(self, name: str, fingerprint: str) -> Path:
        return self.root / "plans" / f"{name}-{fingerprint}.json"

    @property
    def tracking_database(self) -> Path:
        return self.root / "mlflow.db"


@dataclass(frozen=True)
class DataPaths:
    """One prepared corpus."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def work(self) -> Path:
        """What the stages of `cpt prepare` leave for each other."""
        return self.root / ".work"

    @property
    def chain(self) -> Path:
        """The last chain of job arrays that was submitted."""
        return self.root / "chain.json"

    @property
    def fetched(self) -> Path:
        """Packages that were fetched, and the documents in them."""
        return self.root / ".fetch"

    @property
    def inspection(self) -> Path:
        """What the data card shows beside the manifest: documents that each step kept and dropped, lengths, curves."""
        return self.root / "inspection.json"

    @property
    def card(self) -> Path:
        """The data card, one page."""
        return self.root / "card.html"

    def quarantine(self, source: str) -> Path:
        """JSONL of records that could not be read: {"where", "what", "excerpt"}."""
        return self.root / source / "quarantine.jsonl"

    def benchmark(self, name: str) -> Path:
        """JSONL of multiple-choice items: {"question", "choices", "gold", "group"}."""
        return self.root / "benchmarks" / f"{name}.jsonl"


@dataclass(frozen=True)
class SweepPaths:
    """One sweep: a folder of trials, each of them a run directory."""

    root: Path

    @property
    def sweep(self) -> Path:
        return self.root / "sweep.json"

    @property
    def table(self) -> Path:
        return self.root / "table.json"

    @property
    def tracking(self) -> Path:
        """Which MLflow run is the parent of the trials."""
        return self.root / "tracking.json"

    @property
    def submissions(self) -> Path:
        """submitit's own folder: pickles and array logs."""
        return self.root / "submitit"

    def trial(self, index: int) -> RunPaths:
        return RunPaths(self.root / "trials" / f"{index:03d}")

    def trials(self) -> list[RunPaths]:
        return [RunPaths(path) for path in sorted((self.root / "trials").glob("[0-9]*"))]


@dataclass(frozen=True)
class RunPaths:
    """One run: one config, one directory, many attempts."""

    root: Path

    @property
    def config(self) -> Path:
        """The sealed config, resolved once at submission and never composed again."""
        return self.root / "config.yaml"

    @property
    def run(self) -> Path:
        return self.root / "run.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def script(self) -> Path:
        return self.root / "run.sbatch"

    @property
    def job(self) -> Path:
        """Which job was submitted for this run, and to which scheduler."""
        return self.root / "job.json"

    @property
    def job_log(self) -> Path:
        """Output of the batch script itself, all attempts; ranks have their own."""
        return self.root / "job.log"

    @property
    def state(self) -> Path:
        """`slurm.recovery`'s memory between attempts."""
        return self.root / "state.json"

    @property
    def supervisor(self) -> Path:
        """Heartbeat of the supervisor itself."""
        return self.root / "supervisor.beat"

    @property
    def deputy_log(self) -> Path:
        """What the supervisor's deputy on another node said, and why it ended."""
        return self.root / "deputy.log"

    @property
    def suspects(self) -> Path:
        """Nodes that failed in this run."""
        return self.root / "suspects.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def torn_checkpoints(self) -> list[Path]:
        """Saves that never became complete; nobody reads them."""
        return sorted(self.checkpoints.glob(".step_*.tmp"))

    @property
    def latest(self) -> Path:
        """`{"step": n}`: the newest complete checkpoint, replaced atomically by training."""
        return self.checkpoints / "latest.json"

    @property
    def fast(self) -> Path:
        """`{"step": n}`: the newest fast checkpoint, which lies on the nodes' own disks; not there while the fast tier has none that counts."""
        return self.checkpoints / "fast.json"

    @property
    def stopped(self) -> Path:
        """Written by rank 0 when training ends by itself: reason and step."""
        return self.root / "stopped.json"

    @property
    def amendments(self) -> Path:
        """What was changed since the launch, and from which step and sample on."""
        return self.root / "amendments.json"

    def sealed_config(self, number: int) -> Path:
        """The config as launched (0) and as sealed by each amendment (1, 2, ...); written with the first amendment."""
        return self.root / "history" / f"config.{number:03d}.yaml"

    @property
    def parity(self) -> Path:
        """The step-0 gate: engine against the Hugging Face base."""
        return self.root / "parity.json"

    @property
    def drill(self) -> Path:
        """A failure made on purpose, and how long the way back took."""
        return self.root / "drill.json"

    @property
    def triggers(self) -> Path:
        """`touch triggers/save`, `triggers/stats` or `triggers/stop`."""
        return self.root / "triggers"

    def layer_stats(self, step: int) -> Path:
        """What update `step` did to each part of the model: JSON lines."""
        return self.root / "stats" / f"step_{step:08d}.jsonl"

    @property
    def tracking(self) -> Path:
        """Which MLflow run this is, and how far the sync has come."""
        return self.root / "tracking.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def export(self) -> Path:
        """Hugging Face folder."""
        return self.root / "export"

    @property
    def export_record(self) -> Path:
        return self.root / "export.json"

    def evaluation(self, label: str) -> Path:
        """`label` is `before` (the base) or `after` (the last checkpoint)."""
        return self.root / "evaluation" / f"{label}.json"

    def attempt(self, number: int) -> AttemptPaths:
        return AttemptPaths(self.root / "attempts" / f"{number:03d}")

    def attempts(self) -> list[AttemptPaths]:
        return [AttemptPaths(path) for path in sorted((self.root / "attempts").glob("[0-9]*"))]

    def metrics(self, attempt: int) -> Path:
        return self.root / "journal" / f"metrics.{attempt:03d}.jsonl"

    def events(self, attempt: int) -> Path:
        return self.root / "journal" / f"events.{attempt:03d}.jsonl"


@dataclass(frozen=True)
class AttemptPaths:
    """One try at a run: from the batch script's first line to its last."""

    root: Path

    @property
    def number(self) -> int:
        return int(self.root.name)

    @property
    def begin(self) -> Path:
        return self.root / "begin.json"

    @property
    def end(self) -> Path:
        return self.root / "end.json"

    def rank(self, rank: int) -> Path:
        """How rank `rank` ended, written by itself when it can."""
        return self.root / f"rank_{rank:04d}.json"

    @property
    def beats(self) -> Path:
        """Heartbeats of all ranks, one file each."""
        return self.root / "beats"

    def beat(self, host: str, rank: int) -> Path:
        """By node first, so that a node's own are found without reading the others."""
        return self.beats / f"{host}.{rank:04d}"

    @property
    def preflight(self) -> Path:
        """One report per node, before ranks start."""
        return self.root / "preflight"

    @property
    def hostfile(self) -> Path:
        """The node of each rank, a line for each, where srun must not deal them out itself."""
        return self.root / "hostfile"

    @property
    def seats(self) -> Path:
        """Which node got which ranks because of the switches between them; not there where one joins them all."""
        return self.root / "seats.json"

    @property
    def first_error(self) -> Path:
        """What failed first, merged from all ranks' records and logs."""
        return self.root / "first_error.txt"

    def stack(self, rank: int) -> Path:
        """Of a rank that hung, as seen from outside."""
        return self.root / f"stack_{rank:04d}.txt"

    def log(self, rank: int | str) -> Path:
        """Standard output and error of one rank; the batch script passes srun's `%t`."""
        return self.root / f"rank_{rank}.log"
