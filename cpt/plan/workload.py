"""`Workload`: a model, its layout and the machines under it; all that the formulas need, of our runs and of published ones alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from cpt.config.hardware import HardwareConfig, RatesConfig
from cpt.config.model import ModelConfig
from cpt.config.parallel import ParallelConfig
from cpt.config.run import RunConfig
from cpt.config.training import Fp8, Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What of a training program changes memory or time. The defaults are this engine's; published rows come from others."""

    gradient_bytes: int = 4
    """A value of the gradient buffer."""
    fully_sharded: bool = False
    """FSDP: weights and gradients sharded over the data-parallel ranks too, gathered a layer at a time."""
    hides_tensor: bool = False
    """Tensor-parallel collectives are cut into pieces that run beside the products they belong to (userbuffers, async TP)."""
    products_again: float = 0.0
    """Share of a layer's products that its backward pass repeats, with all that lies between products (torchtitan's choice by operator)."""
    score_bytes: int = 0
    """For each pair of tokens and head, both passes: what goes through memory where attention is not one kernel (scores, softmax, dropout)."""
    loss_bytes: int = 6
    """For each token and word of the vocabulary, at the height of the loss: the softmax in fp32, and the logits or their gradient in bf16."""
    counts_ends: bool = False
    """Embedding and logits take the places of a layer each: the first and last stage have one layer less, and `model.num_layers` counts two more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One training job. Sizes of batches are in sequences, of sequences in tokens."""

    model: ModelConfig
    parallel: ParallelConfig
    hardware: HardwareConfig
    rates: RatesConfig
    world_size: int
    node_ranks: int
    """Ranks of a node."""
    global_batch_size: int
    micro_batch_size: int
    sequence_length: int
    precision: Precision = Precision.bf16
    fp8: bool = False
    program: Program = field(default_factory=Program)

    @property
    def replicas(self) -> int:
        """Data-parallel size."""
        return self.parallel.data_parallel_size(self.world_size)

    @property
    def micro_batches(self) -> int:
        """Of one replica in a step."""
        return self.global_batch_size // (self.micro_batch_size * self.replicas)

    @property
    def tokens(self) -> float:
        """Of a micro-batch on one context-parallel rank."""
        return self.micro_batch_size * self.sequence_length / self.parallel.context_parallel_size

    @property
    def holders(self) -> int:
        """Ranks over which the optimizer of one rank's weights is spread."""
        return self.replicas * self.parallel.context_parallel_size

    @property
    def value_bytes(self) -> int:
        """Of a weight or an activation."""
        return 2 if self.precision is Precision.bf16 else 4

    @property
    def layers_a_stage(self) -> float:
        """Not whole where embedding and logits count."""
        return self.model.num_layers / self.parallel.pipeline_parallel_size


def workload(config: RunConfig) -> Workload:
    """Of a run."""
    train = config.train
    return Workload(
        model=config.model,
        parallel=config.parallel,
        hardware=config.cluster.hardware,
        rates=config.cluster.rates,
        world_size=config.slurm.world_size,
        node_ranks=config.slurm.tasks_per_node,
        global_batch_size=train.global_batch_size,
        micro_batch_size=train.micro_batch_size,
        sequence_length=train.sequence_length,
        precision=train.precision,
        fp8=train.fp8 is not Fp8.none,
    )
