"""`cpt bench launch [trials=100,1000] [runs=3] [overrides]`: seconds that `cpt train -m` takes on a real SLURM; its own unless cluster.slurm_conf says which."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cpt.core.errors import Problem, UserError


def main(overrides: Sequence[str]) -> int:
    """One row per number of trials; then composing alone, against Hydra's own way."""
    sizes, runs, rest = parse(overrides)
    from cpt.bench.composing import measure
    from jobs import launch_bench
    from jobs.console import open_console

    say = open_console().print
    with launch_bench.somewhere(rest) as given:
        for trials in sizes:
            seconds = [launch_bench.launch(trials, number, given) for number in range(runs)]
            each = " ".join(f"{value:.2f}" for value in seconds)
            say(f"launch of {trials} trials: {statistics.median(seconds):.2f} s, the whole process (median of {each})")
        ratios = [f"optimizer.lr_ratio={number / 100}" for number in range(1, 101)]
        composing = measure([[*given, f"seed={number}", ratio] for number, ratio in enumerate(ratios)])
    say(
        f"composing {len(ratios)} trials: {composing.ours:.2f} s, sealed; Hydra's load_sweep_config {composing.hydra:.2f} s: {composing.ratio:.0f} times as long"
    )
    return 0


def parse(arguments: Sequence[str]) -> tuple[list[int], int, list[str]]:
    """(numbers of trials, runs of each, overrides)"""
    if not arguments or arguments[0] != "launch":
        raise UserError(Problem(where="cpt bench", what=" ".join(arguments) or "no name", why="measures one thing by name", fix="cpt bench launch"))
    own = dict(argument.partition("=")[::2] for argument in arguments[1:] if argument.startswith(("trials=", "runs=")))
    rest = [argument for argument in arguments[1:] if not argument.startswith(("trials=", "runs="))]
    numbers = [*own.get("trials", "100,1000").split(","), own.get("runs", "3")]
    if not all(number.isdigit() and int(number) > 0 for number in numbers) or any(int(number) % 2 for number in numbers[:-1]):
        raise UserError(Problem(where="cpt bench launch", what=" ".join(numbers), why="takes even numbers of trials", fix="trials=100,1000 runs=3"))
    return [int(number) for number in numbers[:-1]], int(numbers[-1]), rest
