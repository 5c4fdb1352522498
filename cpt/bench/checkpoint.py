"""`cpt bench checkpoint`: how long training waits for a save, synchronous and asynchronous, against what `dd` writes on that disk.

The three take turns in every possible order: many disks are fast for some gigabytes and slow for the next.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cpt.bench.figures import Figures, Say, whole_number
from cpt.bench.processes import Processes
from cpt.config.compose import compose_config
from cpt.config.seal import to_yaml
from cpt.core import units
from cpt.core.errors import CptError

OPTIONS = {"rounds": "6", "updates": "4", "folder": "runs/bench", "threads": os.environ.get("OMP_NUM_THREADS", "1")}
"""Saves of each kind (a multiple of six has every order equally often); updates that are made after each, while an asynchronous one is written; whose disk is written to; threads of each process."""

_SHAPE = ["cluster=local", "train.global_batch_size=4", "train.micro_batch_size=1", "train.train_tokens=1000000"]
_PIECE = 8 * 2**20


def run(options: Mapping[str, str], overrides: Sequence[str], say: Say) -> Figures:
    """A row for each way to save, and one for dd."""
    config, rounds, updates = compose_config([*_SHAPE, *overrides]), whole_number(options, "rounds"), whole_number(options, "updates")
    Path(options["folder"]).mkdir(parents=True, exist_ok=True)
    saves: dict[str, list[dict[str, float]]] = {"synchronous": [], "asynchronous": []}
    rates: list[float] = []
    turns = list(itertools.permutations((*saves, "dd")))
    with TemporaryDirectory(prefix="checkpoint-", dir=options["folder"]) as name:
        folder = Path(name).absolute()
        (folder / "config.yaml").write_text(to_yaml(config))
        Processes("weights", folder, 1, options["threads"]).close()
        ranks = Processes("ours", folder, config.slurm.world_size, options["threads"])
        try:
            save = partial(ranks.ask, "save", folder=str(folder / "checkpoints"), updates=updates)
            size = round([save(asynchronous=kind == "asynchronous", step=step) for step, kind in enumerate(saves, 1)][-1]["bytes"])  # allocates its memory
            for number in range(rounds):
                for place, kind in enumerate(turns[number % len(turns)]):
                    if kind == "dd":
                        rates.append(dd(folder / "dd", size))
                    else:
                        saves[kind].append(save(asynchronous=kind == "asynchronous", step=3 * number + place + 3))
                say(f"round {number + 1} of {rounds}: " + ", ".join(f"{kind} {made[-1]['seconds']:.2f} s" for kind, made in saves.items()))
            shutil.rmtree(folder / "checkpoints")
        finally:
            ranks.close()
    return figures(saves, rates)


def dd(path: Path, size: int) -> float:
    """Bytes a second of one sequential writer that ends with fdatasync."""
    begun = time.perf_counter()
    count = -(-size // _PIECE)
    ended = subprocess.run(
        ["dd", "if=/dev/zero", f"of={path}", f"bs={_PIECE}", f"count={count}", "conv=fdatasync"], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    path.unlink(missing_ok=True)
    if ended.returncode:
        raise CptError(f"dd: {ended.stderr.strip()}")
    return count * _PIECE / seconds


def figures(saves: Mapping[str, Sequence[Mapping[str, float]]], rates: Sequence[float]) -> Figures:
    """Medians. Bandwidth counts from the end of staging until the checkpoint is published."""
    disk = statistics.median(rates)
    rows: list[tuple[str, ...]] = []
    data: dict[str, Any] = {}
    for kind, made in saves.items():
        middle = {key: statistics.median(one[key] for one in made) for key in made[0]}
        rate = statistics.median(one["bytes"] / (one["seconds"] - one["staging"]) for one in made)
        blocked = statistics.median(one["staging"] + one["waited"] for one in made)
        shown = [f"{1000 * value:.1f} ms" for value in (blocked, middle["staging"], middle["waited"], middle["seconds"])]
        rows.append((kind, *shown, units.size(middle["bytes"]), f"{units.size(rate)}/s", f"{rate / disk:.0%}"))
        data[kind] = {"saves": list(made), "blocked": blocked, "bytes_per_second": rate, "share_of_dd": rate / disk}
    rows.append(("dd, fdatasync", "", "", "", "", units.size(middle["bytes"]), f"{units.size(disk)}/s", "100%"))
    ratio = data["synchronous"]["blocked"] / data["asynchronous"]["blocked"]
    columns = ("", "training waits", "of it for the copy", "of it for the disk", "until complete", "size", "bandwidth", "of dd")
    return Figures(
        columns=columns,
        rows=rows,
        data={"kinds": data, "dd_bytes_per_second": list(rates)},
        notes=[
            f"a synchronous save holds training {ratio:.1f} times as long; medians of {len(made)} rounds in changing order; dd wrote {units.size(min(rates))}/s to {units.size(max(rates))}/s"
        ],
    )
