"""`cpt bench train`: this engine against transformers, eager and compiled: same weights, tokens, precision and threads, in alternating pairs.

Each contestant is a process (or one per rank) of its own that waits while another computes. A pair is one measurement of ours and
one of theirs, one after the other; what counts is the median of the pairs' ratios, so that a busy machine slows both.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cpt.bench.figures import Figures, Say, whole_number
from cpt.bench.processes import Failed, Processes
from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.config.seal import to_yaml
from cpt.config.training import Fp8, Precision
from cpt.core import units
from cpt.core.errors import CptError, Problem, UserError
from cpt.plan.flops import flops_per_token

OPTIONS = {"steps": "2", "pairs": "5", "against": "eager,compiled", "threads": os.environ.get("OMP_NUM_THREADS", "1"), "profile": "false"}
"""Updates in one measurement; measurements of each; who is compared; threads of each process; whether the costliest operators are listed."""

_SHAPE = ["cluster=local", "model.num_layers=6", "train.global_batch_size=4", "train.micro_batch_size=4", "train.precision=fp32", "train.train_tokens=1000000"]
"""Seconds a step on two cores. An 8B-shaped stack is `model=llama31_8b model.num_layers=8 train.precision=bf16 train.sequence_length=8192 ...`."""
NAMES = {"ours": "cpt", "eager": "transformers, eager", "compiled": "transformers, torch.compile"}
_SAME = {Precision.fp32: 1e-4, Precision.bf16: 2e-2}
"""How far first losses may differ, relatively: rounding, grown over the steps of one measurement."""


@dataclass(kw_only=True)
class Measured:
    """One contestant. `seconds` of `steps` updates, one entry a measurement; `ratios` of theirs to ours in each pair; `failed` says why it could not run."""

    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    warm_up: float = 0.0
    first_losses: list[float] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    attention: str = ""
    profile: str = ""
    failed: str = ""


def run(options: Mapping[str, str], overrides: Sequence[str], say: Say) -> Figures:
    """A row for each contestant."""
    config, opponents = compose_config([*_SHAPE, *overrides]), opponents_of(options)
    steps, pairs = whole_number(options, "steps"), whole_number(options, "pairs")
    with TemporaryDirectory(prefix="cpt-bench-") as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(to_yaml(config))
        Processes("weights", folder, 1, options["threads"]).close()
        ranks = config.slurm.world_size
        contestants = {kind: Processes(kind, folder, ranks, options["threads"]) for kind in ("ours", *opponents)}
        try:
            found, peak = compete(contestants, steps, pairs, options["profile"] == "true", say)
        finally:
            for processes in contestants.values():
                processes.close()
    require_same_work(found, config)
    return figures(config, found, peak, steps)


def opponents_of(options: Mapping[str, str]) -> list[str]:
    """Raises `UserError` for one that is not known."""
    chosen = [name for name in options["against"].split(",") if name]
    if unknown := [name for name in chosen if name not in NAMES or name == "ours"]:
        raise UserError(Problem(where="against", what=f"names {', '.join(unknown)}", why="transformers runs in two ways", fix="against=eager,compiled"))
    return chosen


def compete(contestants: Mapping[str, Processes], steps: int, pairs: int, profile: bool, say: Say) -> tuple[dict[str, Measured], float]:
    """(what was measured of each, FLOP/s of the best matrix product before and after)."""
    found = {kind: Measured() for kind in contestants}
    for kind, measured in found.items():
        try:
            first = contestants[kind].ask("steps", count=steps, seed=0)
            measured.warm_up, measured.first_losses = first["seconds"], first["losses"]
            measured.attention = contestants[kind].ask("begin")["attention"]
            say(f"{NAMES[kind]}: first {steps} steps took {measured.warm_up:.1f} s")
        except Failed as error:
            if kind == "ours":
                raise CptError(str(error)) from error
            measured.failed = str(error)
    running = [kind for kind in found if not found[kind].failed]
    peak = contestants["ours"].ask("matmul")["flops"]
    for pair in range(pairs):
        for kind in running[1:] or running[:1]:
            both = [contestants[one].ask("steps", count=steps, seed=steps * (1 + pair))["seconds"] for one in dict.fromkeys(("ours", kind))]
            for one, seconds in zip(dict.fromkeys(("ours", kind)), both, strict=True):
                found[one].seconds.append(seconds)
            found[kind].ratios.append(both[-1] / both[0])
            say(f"pair {pair + 1} of {pairs}: " + ", ".join(f"{NAMES[one]} {found[one].seconds[-1]:.2f} s" for one in dict.fromkeys(("ours", kind))))
    for kind in running:
        found[kind].memory = contestants[kind].ask("peak_memory")["bytes"]
        found[kind].phases = contestants[kind].ask("phases", count=steps, seed=0)
        found[kind].profile = contestants[kind].ask("profile", seed=0)["table"] if profile else ""
    return found, max(peak, contestants["ours"].ask("matmul")["flops"])


def require_same_work(found: Mapping[str, Measured], config: RunConfig) -> None:
    """The first steps start from the same weights on the same tokens: other losses would be other work. Raises `CptError`."""
    ours = found["ours"].first_losses
    for kind, measured in found.items():
        if any(abs(a / b - 1) > _SAME[config.train.precision] for a, b in zip(measured.first_losses, ours, strict=False)):
            raise CptError(f"{NAMES[kind]} had losses {measured.first_losses}, ours {ours}: not the same work, nothing to compare")


def figures(config: RunConfig, found: Mapping[str, Measured], peak: float, steps: int) -> Figures:
    """Tokens and FLOPs a second and device; both MFUs against the matrix product that was measured in between."""
    tokens, devices = config.train.tokens_per_step * steps, config.slurm.world_size
    causal, whole = (flops_per_token(config.model, config.train.sequence_length, whole_attention=way) for way in (False, True))
    rows: list[tuple[str, ...]] = []
    data: dict[str, dict[str, Any]] = {}
    for kind, one in found.items():
        if one.failed:
            rows.append((NAMES[kind], "not possible here", *[""] * 7))
            data[kind] = {"failed": one.failed}
            continue
        rate = tokens / statistics.median(one.seconds) / devices
        ratio = statistics.median(one.ratios) if one.ratios else 1.0
        parts = " ".join(f"{phase} {seconds / sum(one.phases.values()):.0%}" for phase, seconds in one.phases.items())
        shares = (f"{rate * causal / peak:.1%}", f"{rate * whole / peak:.1%}")
        speed = ("" if kind == "ours" else f"{ratio:.2f}", f"{rate:,.0f}", f"{rate * causal / 1e12:.3g}")
        rows.append((NAMES[kind], *speed, *shares, units.size(one.memory), f"{one.warm_up:.1f} s", parts))
        data[kind] = {
            "tokens_per_second_per_device": rate,
            "flops_causal": rate * causal,
            "mfu_causal": rate * causal / peak,
            "mfu_whole_attention": rate * whole / peak,
            "ours_over_theirs": ratio,
            **{name: getattr(one, name) for name in ("seconds", "ratios", "warm_up", "first_losses", "phases", "memory", "attention")},
        }
    return Figures(
        columns=("", "ours / theirs", "tokens/s/device", "TFLOP/s", "MFU causal", "MFU whole", "peak memory", "first steps", "phases"),
        rows=rows,
        data={"config": shape(config), "matmul_peak_flops": peak, "contestants": data},
        notes=[
            f"{', '.join(f'{name} {value}' for name, value in shape(config).items())}; matrix product {peak / 1e12:.3g} TFLOP/s",
            "attention by " + ", ".join(f"{one.attention} ({NAMES[kind]})" for kind, one in found.items() if one.attention),
            *(f"{NAMES[kind]}: {one.failed}" for kind, one in found.items() if one.failed),
            *(f"{NAMES[kind]}\n{one.profile}" for kind, one in found.items() if one.profile),
        ],
    )


def shape(config: RunConfig) -> dict[str, Any]:
    """What was computed, by name."""
    train = config.train
    return {
        "model": config.model.name,
        "layers": config.model.num_layers,
        "parameters": units.count(config.model.parameters),
        "sequence_length": train.sequence_length,
        "global_batch_size": train.global_batch_size,
        "micro_batch_size": train.micro_batch_size,
        "precision": str(train.precision) if train.fp8 is Fp8.none else f"{train.precision} with {train.fp8} fp8",
        "ranks": config.slurm.world_size,
    }
