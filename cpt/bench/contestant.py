"""One process of a comparison: builds its trainer, then answers commands. `python -m cpt.bench.contestant <kind> <folder> <world as JSON>`.

A line of JSON in, a line of JSON out; whatever libraries print goes to stderr. Between commands it waits without using a core.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.config.training import Precision
from cpt.core.world import World


def main(kind: str, folder: Path, world: World) -> None:
    """Until stdin is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = read_config(folder / "config.yaml")
    contestant = Contestant(kind, config, world, folder / "base")
    for line in sys.stdin:
        command = json.loads(line)
        found = getattr(contestant, command.pop("do"))(**command)
        answers.write(json.dumps(found) + "\n")
        answers.flush()


class Contestant:
    """The commands."""

    def __init__(self, kind: str, config: RunConfig, world: World, base: Path) -> None:
        from cpt.bench import trainers

        self.config = config
        self.saves: Any = None
        if kind == "weights":
            trainers.make_weights(config, base)
            return
        self.trainer: trainers.Trainer = (
            trainers.Ours(config, world, base) if kind == "ours" else trainers.Transformers(config, world, base, compiled=kind == "compiled")
        )

    def steps(self, count: int, seed: int) -> dict[str, Any]:
        """Seconds of `count` updates on batches that follow from `seed`, and their losses."""
        begun = _now()
        losses = [self.trainer.step(self._batch(seed + number)) for number in range(count)]
        return {"seconds": _now() - begun, "losses": losses}

    def phases(self, count: int, seed: int) -> dict[str, float]:
        """Seconds a step, by phase."""
        from cpt.bench.phases import Phases

        phases = Phases(self.trainer.modules, self.trainer.updates)
        for number in range(count):
            phases.enter("data")
            batch = self._batch(seed + number)
            phases.enter("other")
            self.trainer.step(batch)
        return {phase: seconds / count for phase, seconds in phases.stop().items()}

    def save(self, folder: str, asynchronous: bool, updates: int, step: int) -> dict[str, float]:
        """Seconds and bytes of one checkpoint of ours, with `updates` made before it is waited for."""
        from cpt.bench.saves import Saves

        self.saves = self.saves or Saves(self.trainer.engine, Path(folder))  # type: ignore[attr-defined]
        found: dict[str, float] = self.saves.save(asynchronous, step, updates, lambda: self.steps(1, seed=step))
        return found

    def matmul(self) -> dict[str, float]:
        """FLOP/s of the largest matrix product that this device does in the run's precision: the best of five."""
        import torch

        cuda = torch.cuda.is_available()
        size, dtype = (8192 if cuda else 2048), torch.bfloat16 if self.config.train.precision is Precision.bf16 else torch.float32
        device = "cuda" if cuda else "cpu"
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        repeats = 20 if cuda else 1
        torch.mm(a, b)
        return {"flops": 2.0 * size**3 * repeats / min(_timed(lambda: [torch.mm(a, b) for _ in range(repeats)]) for _ in range(5))}

    def begin(self) -> dict[str, str]:
        """What attends. Peak memory counts from here: loading is not training."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        Path("/proc/self/clear_refs").write_text("5")
        return {"attention": self.trainer.attention}

    def peak_memory(self) -> dict[str, int]:
        """Bytes: allocated on the GPU, or resident in this process."""
        import torch

        if torch.cuda.is_available():
            return {"bytes": torch.cuda.max_memory_allocated()}
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return {"bytes": int(line.split()[1]) * 1024}

    def profile(self, seed: int, rows: int = 30) -> dict[str, str]:
        """torch.profiler's table of one step, the operators that cost most on top."""
        import torch
        from torch.profiler import ProfilerActivity, profile

        cuda = torch.cuda.is_available()
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
            self.trainer.step(self._batch(seed))
        by = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        return {"table": profiler.key_averages().table(sort_by=by, row_limit=rows, max_name_column_width=60)}

    def _batch(self, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        train = self.config.train
        return np.random.default_rng(seed).integers(0, self.config.model.vocab_size, (train.global_batch_size, train.sequence_length + 1))


def _timed(work: Callable[[], object]) -> float:
    begun = _now()
    work()
    return _now() - begun


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), World(**json.loads(sys.argv[3])))
