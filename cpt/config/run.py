"""`RunConfig`: the root of everything that can be chosen. Its groups are the folders of `hydra_conf/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cpt.config.data import CorpusConfig, MixtureConfig
from cpt.config.export import ExportConfig
from cpt.config.hardware import BudgetConfig
from cpt.config.loader import LoaderConfig
from cpt.config.model import ModelConfig
from cpt.config.parallel import ParallelConfig
from cpt.config.running import ClusterConfig, FabricConfig, SlurmConfig, TrackingConfig
from cpt.config.section import Section
from cpt.config.training import (
    CheckpointConfig,
    EvaluateConfig,
    OptimizerConfig,
    ScheduleConfig,
    SweepConfig,
    TrainConfig,
)
from cpt.core.paths import RunsRoot


@dataclass(kw_only=True, slots=True)
class RunConfig(Section):
    """One value flows: composed once, validated, sealed, then passed down whole or by section."""

    name: str = "run"
    """The human word in front of the fingerprint."""
    seed: int = 1234
    """Of the order in which data is read, and of dropout."""
    run_root: str = "runs"
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    fabric: FabricConfig = field(default_factory=FabricConfig)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def runs(self) -> RunsRoot:
        return RunsRoot(Path(self.run_root).absolute())

    @property
    def peak_lr(self) -> float:
        """The ratio times the base's own published peak."""
        return self.optimizer.lr_ratio * self.model.base_peak_lr
