"""`cpt bench loaders`: how long a step waits for its batch, by memmap and by DALI; against reading when asked and megatron-core's GPTDataset, in alternating pairs.

Each way is measured flat out, and beside a computation whose time alone is measured in between: what a step takes longer than that is
what its batch costs, as waiting or as cores that are taken from the computation.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from cpt.bench.feeds import Batches, Ways, open_ways
from cpt.bench.figures import Figures, Say, whole_number
from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.core import units

OPTIONS = {
    "steps": "20",
    "pairs": "5",
    "compute": "100",
    "tokens": "50000000",
    "workers": "2",
    "folder": "runs/bench",
    "threads": os.environ.get("OMP_NUM_THREADS", "1"),
}
"""Batches in a measurement; measurements of each; milliseconds of computation a step; tokens on disk; DataLoader's processes; whose disk; torch's threads."""

_SHAPE = ["cluster=local", "model=llama31_8b", "train.sequence_length=8192", "train.global_batch_size=96", "train.train_tokens=1000000000"]
"""What one replica of e-Llama's run reads a step: 1440 rows over 15 replicas."""
_WARM = 4
"""Batches before the clock starts: what was read while nobody asked is no speed."""
NAMES = {"plain": "memmap, read when asked", "memmap": "memmap", "dali": "DALI", "megatron": "GPTDataset, DataLoader"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Seconds of one measurement: until the first batch was there; of all steps; of each step's wait for its batch."""

    opening: float
    total: float
    waits: list[float]


class Alone:
    """No batches."""

    def next(self) -> None:
        """At once."""

    def close(self) -> None:
        """Nothing was started."""


class Computation:
    """Matrix products that take `seconds` on the device when nothing else runs."""

    def __init__(self, seconds: float) -> None:
        cuda = torch.cuda.is_available()
        size = 4096 if cuda else 512
        self._matrix = torch.randn(size, size, device="cuda" if cuda else "cpu", dtype=torch.bfloat16 if cuda else torch.float32)
        self._count = 8
        self()
        self._count = max(1, round(seconds * self._count / min(_timed(self) for _ in range(5))))

    def __call__(self) -> None:
        """Returns when they are done, as a step does."""
        for _ in range(self._count):
            torch.mm(self._matrix, self._matrix)
        _now()


def run(options: Mapping[str, str], overrides: Sequence[str], say: Say) -> Figures:
    """A row for each way."""
    config, workers = compose_config([*_SHAPE, *overrides]), whole_number(options, "workers", 0)
    steps, pairs, tokens = (whole_number(options, name) for name in ("steps", "pairs", "tokens"))
    torch.set_num_threads(whole_number(options, "threads"))
    computation = Computation(whole_number(options, "compute") / 1000)
    Path(options["folder"]).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="data-", dir=options["folder"]) as name:
        ways = open_ways(config, Path(name).absolute(), tokens, workers, steps + _WARM)
        flat_out = alternate(ways, pairs, steps, lambda: None, lambda line: say(f"when asked, {line}"))
        beside = alternate({"alone": Alone, **ways}, pairs, steps, computation, lambda line: say(f"beside a computation, {line}"))
    return figures(config, flat_out, beside)


def alternate(ways: Ways, pairs: int, steps: int, compute: Callable[[], object], say: Say) -> dict[str, list[Measured]]:
    """Way -> a measurement from each round, one after the other; every round begins with another one."""
    names, found = list(ways), {name: list[Measured]() for name in ways}
    for pair in range(pairs):
        for name in names[pair % len(names) :] + names[: pair % len(names)]:
            found[name].append(measure(ways[name], steps, compute))
        say(f"round {pair + 1} of {pairs} is done")
    return found


def measure(way: Callable[[], Batches], steps: int, compute: Callable[[], object]) -> Measured:
    """Open, warm up, time, close."""
    begun = _now()
    with closing(way()) as batches:
        batches.next()
        opening = _now() - begun
        for _ in range(_WARM - 1):
            batches.next()
            compute()
        waits, begun = [], _now()
        for _ in range(steps):
            waits.append(_timed(batches.next))
            compute()
        return Measured(opening=opening, total=_now() - begun, waits=waits)


def figures(config: RunConfig, flat_out: Mapping[str, Sequence[Measured]], beside: Mapping[str, Sequence[Measured]]) -> Figures:
    """Medians over the rounds, of waits over all steps; ratios and what a step takes longer are of each round."""
    batch, steps = config.train.tokens_per_step, len(beside["alone"][0].waits)
    alone = statistics.median(one.total for one in beside["alone"]) / steps
    rows: list[tuple[str, ...]] = []
    data: dict[str, dict[str, Any]] = {}
    for name in flat_out:
        rate = statistics.median(steps / one.total for one in flat_out[name])
        ratios = [plain.total / one.total for plain, one in zip(flat_out["plain"], flat_out[name], strict=True)]
        waits = [wait for one in beside[name] for wait in one.waits]
        wait, rarely = statistics.median(waits), statistics.quantiles(waits, n=20)[-1]
        longer = statistics.median((one.total - nothing.total) / steps for nothing, one in zip(beside["alone"], beside[name], strict=True))
        opening = statistics.median(one.opening for one in beside[name])
        one = {
            "batches_per_second": rate,
            "tokens_per_second": rate * batch,
            "over_plain": statistics.median(ratios),
            "wait": wait,
            "wait_95th_percentile": rarely,
            "longer": longer,
            "opening": opening,
        }
        shown = [f"{1000 * seconds:.1f} ms" for seconds in (wait, rarely, longer, opening)]
        rows.append((NAMES[name], f"{rate:.1f}", units.count(rate * batch), f"{one['over_plain']:.2f}", *shown))
        data[name] = {**one, "flat_out": [asdict(each) for each in flat_out[name]], "beside": [asdict(each) for each in beside[name]]}
    train = config.train
    return Figures(
        columns=("", "batches/s", "tokens/s", "over the first", "a step waits", "one in 20", "takes longer", "first batch after"),
        rows=rows,
        data={"rows": train.global_batch_size, "sequence_length": train.sequence_length, "compute": alone, "ways": data},
        notes=[
            f"{train.global_batch_size} rows of {train.sequence_length} tokens a batch, files in memory; the step alone takes {1000 * alone:.1f} ms",
            f"the first three give the same int64 rows with their CRC-32s; {NAMES['megatron']} gives rows of its own, with labels, positions and a loss mask",
        ],
    )


def _timed(work: Callable[[], object]) -> float:
    begun = _now()
    work()
    return _now() - begun


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
