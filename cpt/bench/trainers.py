"""The two that are compared: this engine, and transformers with torch's own tools. Same weights, tokens, loss, clipping and AdamW."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist

from cpt.config.run import RunConfig
from cpt.config.training import Precision
from cpt.core.world import World

IntArray = np.ndarray[Any, np.dtype[np.int64]]


class Trainer(Protocol):
    """`modules` (more than one in an interleaved pipeline) and `updates`, calls by owner and name, are what phases are taken of."""

    attention: str
    modules: list[Any]
    updates: list[tuple[Any, str]]

    def step(self, tokens: IntArray) -> float:
        """One update on a global batch [n, s + 1]; its loss, nats a token."""


class Ours:
    """`cpt.engine` in the config's layout."""

    def __init__(self, config: RunConfig, world: World, base: Path) -> None:
        from cpt import engine
        from cpt.convert import BaseFolder, import_weights
        from cpt.engine import fp8
        from cpt.engine.kernels import resolve
        from cpt.train.attention import forward_plan

        engine.initialize(world, config.parallel, config.seed)
        kernel = resolve(config.train.attention, config.train.precision, config.train.attention_dropout)
        fp8.check(config.train.fp8)
        self.attention = str(kernel)
        self.engine = engine.Engine(config.model, config.parallel, config.train.precision, config.optimizer, forward_plan(config, kernel, None))
        import_weights(self.engine.chunks, config.model, BaseFolder(base))
        self.engine.weights_changed()
        self.config, self.modules = config, self.engine.modules
        self.updates = [(engine.engine, "gradient_norm"), (engine.engine, "update")]

    def step(self, tokens: IntArray) -> float:
        """`Engine.train_step`, as the loop calls it."""
        rows = self.engine.rows(len(tokens))
        return self.engine.train_step(tokens[rows.start : rows.stop], self.config.train.micro_batch_size, self.config.peak_lr).loss


class Transformers:
    """Eager or compiled, SDPA, fused AdamW; FSDP2 with fp32 master weights where there are several ranks or the precision is bf16."""

    def __init__(self, config: RunConfig, world: World, base: Path, compiled: bool) -> None:
        from transformers import AutoModelForCausalLM

        self.config, self.world = config, world
        self.device = torch.device("cuda", world.local_rank) if torch.cuda.is_available() else torch.device("cpu")
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True)
        model.config.use_cache = False
        self.model = model.to(self.device).train()
        if world.world_size > 1 or config.train.precision is Precision.bf16:
            self._shard()
        self.attention = f"sdpa {torch.__version__}"
        self.parameters = list(self.model.parameters())
        self.optimizer = self._adamw()
        self.updates: list[tuple[Any, str]] = [(self, "update")]
        self.modules: list[Any] = [torch.compile(self.model) if compiled else self.model]

    def step(self, tokens: IntArray) -> float:
        """Micro-batches, clipping, update."""
        train, size = self.config.train, len(tokens) // self.world.world_size
        mine = torch.from_numpy(tokens[self.world.rank * size : (self.world.rank + 1) * size]).to(self.device)
        micro, losses = mine.split(train.micro_batch_size), []
        for batch in micro:
            logits = self.modules[0](input_ids=batch[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
            (loss / len(micro)).backward()
            losses.append(loss.detach())
        self.update()
        mean = torch.stack(losses).mean()
        if dist.is_initialized():
            dist.all_reduce(mean, dist.ReduceOp.AVG if self.device.type == "cuda" else dist.ReduceOp.SUM)
            mean = mean if self.device.type == "cuda" else mean / self.world.world_size
        return float(mean)

    def update(self) -> None:
        """Clip, step, forget."""
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _shard(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        backend = "nccl" if self.device.type == "cuda" else "gloo"
        address = f"tcp://{self.world.master_addr}:{self.world.master_port}"
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        dist.init_process_group(backend, init_method=address, rank=self.world.rank, world_size=self.world.world_size)
        bf16 = self.config.train.precision is Precision.bf16
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32)
        mesh = init_device_mesh(self.device.type, (self.world.world_size,))
        for layer in self.model.model.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(self.model, mesh=mesh, mp_policy=policy)

    def _adamw(self) -> torch.optim.Optimizer:
        """Weight decay for matrices alone, as megatron-core groups them."""
        chosen = self.config.optimizer
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.parameters if p.dim() > 1], "weight_decay": chosen.weight_decay},
            {"params": [p for p in self.parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.peak_lr, betas=(chosen.beta1, chosen.beta2), eps=chosen.epsilon, fused=True)


def make_weights(config: RunConfig, folder: Path) -> None:
    """A Hugging Face folder with random weights of the config's shape, for both to read."""
    from transformers import AutoModelForCausalLM

    from cpt.convert.settings import transformers_config

    torch.manual_seed(config.seed)
    dtype = torch.bfloat16 if config.train.precision is Precision.bf16 else torch.float32
    AutoModelForCausalLM.from_config(transformers_config(config.model), dtype=dtype).save_pretrained(folder)
