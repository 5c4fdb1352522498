"""`cpt bench launch`: seconds that `cpt train -m` takes as a whole process, on a real SLURM; its own unless cluster.slurm_conf says which."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cpt.bench.composing import measure
from cpt.bench.figures import Figures, Say, whole_number
from cpt.config.compose import compose_config
from cpt.core.errors import CptError, Problem, UserError
from slurm import arrays
from slurm.devcluster import DevCluster

OPTIONS = {"trials": "100,1000", "runs": "3"}

TINY = ["experiment=lr_sweep", "model=tiny", "corpus=sample", "train.sequence_length=64", "train.train_tokens=10240"]
"""A base and a corpus that are made in seconds; how large they are changes nothing here."""

_LATER = "+slurm.extra.begin=now+1hour"
"""Queued and never started: the launch is what is measured, and nothing must compete with it."""


def run(options: Mapping[str, str], overrides: Sequence[str], say: Say) -> Figures:
    """One row per number of trials; then composing alone, against Hydra's own way."""
    sizes, runs = trials_of(options), whole_number(options, "runs")
    with somewhere(overrides) as given:
        seconds = {trials: [launch(trials, number, given, say) for number in range(runs)] for trials in sizes}
        ratios = [f"optimizer.lr_ratio={number / 100}" for number in range(1, 101)]
        composing = measure([[*given, f"seed={number}", ratio] for number, ratio in enumerate(ratios)])
    return Figures(
        columns=("trials", "seconds (median)", "each"),
        rows=[(str(trials), f"{statistics.median(each):.2f}", " ".join(f"{value:.2f}" for value in each)) for trials, each in seconds.items()],
        data={"seconds": seconds, "composing": {"ours": composing.ours, "hydra": composing.hydra, "ratio": composing.ratio}},
        notes=[
            f"composing {len(ratios)} trials: {composing.ours:.2f} s, sealed; "
            f"Hydra's load_sweep_config {composing.hydra:.2f} s: {composing.ratio:.0f} times as long"
        ],
    )


def trials_of(options: Mapping[str, str]) -> list[int]:
    """Numbers of trials, even ones: each seed has two. Raises `UserError` for others."""
    numbers = options["trials"].split(",")
    if not all(number.isdigit() and int(number) > 0 and int(number) % 2 == 0 for number in numbers):
        raise UserError(Problem(where="trials", what=options["trials"], why="takes even numbers of trials", fix="trials=100,1000"))
    return [int(number) for number in numbers]


def axes(trials: int) -> list[str]:
    """An even number of trials: seeds, each with two learning rates."""
    return [f"seed=range(0,{trials // 2})", "optimizer.lr_ratio=0.1,0.3"]


@contextmanager
def somewhere(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The overrides, with a run root, data and a cluster of their own for what they do not name. All of it is gone afterwards."""
    with TemporaryDirectory(prefix="cpt-bench-") as folder:
        given = [*TINY, *overrides]
        if not any(override.startswith("run_root=") for override in overrides):
            given.append(f"run_root={folder}/runs")
            for verb in ("base", "prepare"):
                cpt(verb, *given)
        own = None if any(override.startswith("cluster") for override in overrides) else DevCluster(Path(folder) / "cluster")
        try:
            if own:
                own.start(2)
                given.append(f"cluster.slurm_conf={own.files.slurm_conf}")
            yield given
        finally:
            if own:
                own.stop()


def launch(trials: int, number: int, overrides: Sequence[str], say: Say) -> float:
    """Seconds from the command to the prompt; the array is taken out of the queue again. Raises `CptError` when it was not all there."""
    whole = [*overrides, f"sweep.name=bench-{trials}-{number}"]
    begun = time.perf_counter()
    cpt("train", "-m", *whole, _LATER, *axes(trials))
    seconds = time.perf_counter() - begun
    config = compose_config(whole)
    sweep = config.runs.sweep(config.sweep.name)
    queued = len(arrays.queued(config, sweep.trials()))
    arrays.cancel(config, sweep)
    if queued != trials:
        raise CptError(f"{queued} of {trials} trials are in the queue")
    say(f"{trials} trials: {seconds:.2f} s")
    return seconds


def cpt(*command: str) -> None:
    """One verb in its own process. Raises `CptError` with what it said."""
    done = subprocess.run([sys.executable, "-m", "jobs.cli", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CptError(f"cpt {' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
