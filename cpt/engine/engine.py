"""`Engine`: one model over TP x CP x PP x DP, and the three things that can be asked of it.

Shapes: n sequences over all ranks, m = n / DP of this rank's replica, s tokens a sequence, v vocabulary. Every rank calls
the same method and gets the same answer; each works only on its own part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region
from megatron.core.transformer.module import Float16Module

from cpt.config.model import ModelConfig
from cpt.config.parallel import ParallelConfig
from cpt.config.training import OptimizerConfig, Precision
from cpt.engine.attention import PLAIN, ForwardPlan
from cpt.engine.context import held, whole_rows
from cpt.engine.model import build_chunks
from cpt.engine.moe import expert_tokens
from cpt.engine.optimizer import build_optimizer, gradient_norm, set_learning_rate, update
from cpt.engine.parallel import counts_once, data_rank, describe
from cpt.engine.segments import Documents, documents

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float32]]
MicroBatch = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]
"""(tokens [b, s], labels [b, s] or None for logits, the tokens where documents are looked for: on the host). All are there before the first
micro-batch is computed: a copy made later would wait for all that was asked of the device before it."""


@dataclass(frozen=True)
class StepResult:
    """What one global batch gives. `sequence_losses` [n]: mean loss of each sequence of the global batch, nats a token."""

    loss: float
    grad_norm: float
    sequence_losses: FloatArray
    expert_tokens: IntArray | None = None
    """[layers with experts, experts]: how many tokens each routed expert got; None without experts."""


class Engine:
    """A model and, when `optimizer` is given, what it takes to train it. Weights are random until loaded."""

    def __init__(
        self,
        model: ModelConfig,
        parallel: ParallelConfig,
        precision: Precision,
        optimizer: OptimizerConfig | None = None,
        forward: ForwardPlan = PLAIN,
    ) -> None:
        self.model_config, self.parallel, self.precision, self.forward = model, parallel, precision, forward
        self.chunks = build_chunks(model, parallel, precision, forward)
        config = self.chunks[0].config
        self.modules: list[Any] = [Float16Module(config, gpt) for gpt in self.chunks] if precision is Precision.bf16 else list(self.chunks)
        self.optimizer: Any = None
        if optimizer is not None:
            self.optimizer_config = optimizer
            self.modules = _distribute(self.modules, config, parallel)
            self.optimizer = build_optimizer(self.modules, optimizer, parallel, precision)
            config.grad_scale_func = self.optimizer.scale_loss

    def weights_changed(self) -> None:
        """Call after weights were written from outside: the fp32 master copies follow."""
        if self.optimizer is not None:
            self.optimizer.reload_model_params()

    def rows(self, n: int) -> range:
        """Which rows of a global batch of `n` this rank's replica works on: one block, in order."""
        rank, size = data_rank()
        return range(rank * (n // size), (rank + 1) * (n // size))

    def train_step(self, mine: IntArray, micro_batch_size: int, rate: float) -> StepResult:
        """One update with learning rate `rate`, whatever the gradients are."""
        result = self.compute_gradients(mine, micro_batch_size)
        self.update(result, rate)
        return result

    def compute_gradients(self, mine: IntArray | torch.Tensor, micro_batch_size: int) -> StepResult:
        """Of the global batch, summed over all ranks; `mine` [m, s + 1] are this replica's `rows` of it. Weights and optimizer stay as they are."""
        for module in self.modules:
            module.train()
            module.zero_grad_buffer()
        self.optimizer.zero_grad()
        found = self._run(mine, micro_batch_size, forward_only=False)
        losses = self.gather(found.mean(dim=1) if found is not None else None, (len(mine),), torch.float32)
        return StepResult(float(losses.mean(dtype=np.float64)), gradient_norm(self.optimizer), losses, expert_tokens(self.chunks, self.model_config))

    def update(self, result: StepResult, rate: float) -> None:
        """Change the weights by the gradients that gave `result`, with learning rate `rate`. Who does not call it drops them."""
        set_learning_rate(self.optimizer, rate, self.optimizer_config.weight_decay)
        update(self.optimizer, result.grad_norm, self.optimizer_config.clip_grad)

    def token_losses(self, tokens: IntArray, micro_batch_size: int = 1) -> FloatArray:
        """Loss of every predicted token, nats: [n, s + 1] -> [n, s]. Rows are spread over data-parallel ranks."""
        self._eval()
        _, size = data_rank()
        missing = -len(tokens) % (micro_batch_size * size * self.parallel.micro_batch_group)
        padded = np.concatenate([tokens, np.repeat(tokens[:1], missing, axis=0)])
        rows = self.rows(len(padded))
        with torch.no_grad():
            found = self._run(padded[rows.start : rows.stop], micro_batch_size, forward_only=True)
        losses: FloatArray = self.gather(found, (len(rows), tokens.shape[1] - 1), torch.float32)
        return losses[: len(tokens)]

    def logits(self, tokens: IntArray) -> torch.Tensor:
        """fp32 logits [n, s, v] of tokens [n, s], whole on every rank. For parity, benchmarks and small batches."""
        self._eval()
        found: list[torch.Tensor] = []

        def keep(output: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            whole = whole_rows(gather_from_tensor_model_parallel_region(output.float()))
            found.append(whole[:, : tokens.shape[1], : self.model_config.vocab_size].contiguous())
            return whole.sum(), {}

        with torch.no_grad():
            # Later tokens change nothing for those before them.
            multiple = self.parallel.sequence_multiple * self.forward.fp8.multiple
            padded = torch.from_numpy(np.pad(tokens, ((0, 0), (0, -tokens.shape[1] % multiple))))
            batch = (padded.to(torch.cuda.current_device()), None, padded)
            self._forward_backward([batch] * self.parallel.micro_batch_group, keep, tuple(padded.shape), forward_only=True)
        shape = (*tokens.shape, self.model_config.vocab_size)
        result = found[0] if found else torch.empty(shape, device=torch.cuda.current_device())
        dist.broadcast(result, parallel_state.get_pipeline_model_parallel_last_rank(), group=parallel_state.get_pipeline_model_parallel_group())
        return result

    def gather(self, mine: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        """One value or row per sequence, from every replica to every rank: [m, ...] of `shape` -> numpy [n, ...].

        Only one rank of a replica counts, on the last stage; the others may give None.
        """
        rank, size = data_rank()
        whole = torch.zeros(shape[0] * size, *shape[1:], dtype=dtype, device=torch.cuda.current_device())
        if counts_once() and mine is not None:
            whole[rank * shape[0] : (rank + 1) * shape[0]] = mine
        dist.all_reduce(whole)
        return whole.cpu().numpy()

    def _run(self, mine: IntArray | torch.Tensor, micro_batch_size: int, forward_only: bool) -> torch.Tensor | None:
        """Token losses [m, s] of this replica's rows; None where no loss is computed."""
        rows = torch.as_tensor(mine)
        host = rows if self.forward.end_of_document is None else rows.cpu()
        micro = zip(rows.to(torch.cuda.current_device()).split(micro_batch_size), host.split(micro_batch_size), strict=True)
        found: list[torch.Tensor] = []

        def keep(output: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            found.append(whole_rows(output.detach().float()))
            return output.float().mean() / self.parallel.context_parallel_size, {}  # megatron adds over those ranks

        shape = (micro_batch_size, mine.shape[1] - 1)
        self._forward_backward([(m[:, :-1], m[:, 1:], there[:, :-1]) for m, there in micro], keep, shape, forward_only)
        return torch.cat(found) if found else None

    def _eval(self) -> None:
        for module in self.modules:
            module.eval()

    def _forward_backward(
        self,
        batches: Sequence[MicroBatch],
        loss: Callable[[torch.Tensor], tuple[torch.Tensor, dict[str, torch.Tensor]]],
        shape: tuple[int, ...],
        forward_only: bool,
    ) -> None:
        """megatron-core's pipeline schedule over the micro-batches; every model chunk reads all of them."""

        mine = held(shape[1]).to(torch.cuda.current_device())

        def step(iterator: Iterator[MicroBatch], module: Any) -> tuple[torch.Tensor, Callable[..., Any]]:
            tokens, labels, host = next(iterator)
            targets = labels[:, mine] if labels is not None else None
            return module(tokens[:, mine], mine.expand(len(tokens), -1), None, labels=targets, packed_seq_params=self._documents(host)), loss

        get_forward_backward_func()(
            forward_step_func=step,
            data_iterator=[iter(batches) for _ in self.modules],
            model=self.modules,
            num_microbatches=len(batches),
            seq_length=shape[1],
            micro_batch_size=shape[0],
            forward_only=forward_only,
        )

    def _documents(self, tokens: torch.Tensor) -> Documents | None:
        if self.forward.end_of_document is None:
            return None
        rank, size = parallel_state.get_context_parallel_rank(), parallel_state.get_context_parallel_world_size()
        return documents(tokens, self.forward.end_of_document, rank, size)

    def describe(self) -> str:
        """The layout in a few letters, for logs and records: `TP2 x PP2 x DP2`."""
        return describe(self.parallel)


def _distribute(modules: list[Any], config: Any, parallel: ParallelConfig) -> list[Any]:
    """Each chunk in its own data-parallel wrapper, and the schedule told when to reduce gradients and gather parameters.

    Later chunks are one bucket each: their communication hides behind the first chunk's computation.
    """
    wrapped = [DistributedDataParallel(config, _ddp_config(parallel), module, disable_bucketing=number > 0) for number, module in enumerate(modules)]
    config.finalize_model_grads_func = finalize_model_grads
    if parallel.overlap_grad_reduce:
        no_syncs = [module.no_sync for module in wrapped]
        config.no_sync_func = no_syncs if len(wrapped) > 1 else no_syncs[0]
    if parallel.overlap_param_gather:
        config.param_sync_func = [module.start_param_sync for module in wrapped]
    return wrapped


def _ddp_config(parallel: ParallelConfig) -> DistributedDataParallelConfig:
    return DistributedDataParallelConfig(
        use_distributed_optimizer=True,
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
        check_for_nan_in_grad=False,
    )
