"""The planner's formulas against published figures: one table, every row of it printed, within its tolerance or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cpt.config.compose import compose_config
from cpt.config.hardware import RatesConfig
from cpt.config.run import RunConfig
from cpt.plan.cost import gpu_hours
from cpt.plan.memory import stage_memory
from cpt.plan.published import Published, model
from cpt.plan.reliability import DAY, RATES, Reliability, best_interval, expected
from cpt.plan.sharded import sharded_memory
from cpt.plan.step import step_seconds
from cpt.plan.workload import Workload, workload

_STEP, _FLOPS, _PEAK, _EXACT = 0.15, 0.002, 0.1, 0.001
"""Tolerances: of a step time (the row that gives the constant is met exactly), of FLOPs a token, of a peak memory that an allocator reserved, of arithmetic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One figure, theirs and ours."""

    kind: str
    label: str
    unit: str
    published: float
    ours: float
    tolerance: float
    source: str
    calibrates: bool = False
    outside: str = ""

    @property
    def error(self) -> float:
        """Ours over theirs, less one."""
        return self.ours / self.published - 1

    @property
    def holds(self) -> bool:
        """Within the tolerance."""
        return abs(self.error) <= self.tolerance

    def row(self) -> tuple[str, ...]:
        """For a table, without the source."""
        verdict = "fitted" if self.calibrates else f"{self.tolerance:.1%}" if self.holds else f"not within {self.tolerance:.1%}: {self.outside or 'wrong'}"
        return self.kind, self.label, f"{self.published:.6g} {self.unit}", f"{self.ours:.6g}", f"{self.error:+.1%}", verdict


def checks(rows: Sequence[Published]) -> Iterator[Check]:
    """All kinds, in the order of the table."""
    yield from flops_checks(rows)
    yield from days_checks(rows)
    yield from step_checks(rows)
    yield from memory_checks(rows)
    yield from checkpoint_checks()
    yield from failure_checks()
    yield from ellama_checks()


def flops_checks(rows: Sequence[Published]) -> Iterator[Check]:
    """FLOP/s printed beside tokens a second, in the source's own convention."""
    for row in rows:
        if row.teraflops:
            ours = row.tokens * row.flops_per_token / 1e12
            yield Check(kind="FLOP/s", label=row.label, unit="TFLOP/s", published=row.teraflops, ours=ours, tolerance=_FLOPS, source=row.source)


def days_checks(rows: Sequence[Published]) -> Iterator[Check]:
    """Days for 1T tokens from the seconds of a step: arithmetic, to the digits that were printed."""
    for row in rows:
        if row.days:
            ours = 1e12 / (row.work.global_batch_size * row.work.sequence_length) * row.seconds / DAY
            yield Check(kind="days", label=row.label, unit="days", published=row.days, ours=ours, tolerance=0.002, source=row.source)


def step_checks(rows: Sequence[Published]) -> Iterator[Check]:
    """Seconds a step."""
    known = rates(rows)
    for row in rows:
        ours = step_seconds(replace(row.work, rates=known[row.machine]))["total"]
        label, source = row.label, row.source
        theirs = {"published": row.seconds, "calibrates": row.calibrates, "outside": row.outside}
        yield Check(kind="step", label=label, unit="s", ours=ours, tolerance=_STEP, source=source, **theirs)  # type: ignore[arg-type]


def rates(rows: Sequence[Published]) -> dict[str, RatesConfig]:
    """Machine -> its efficiencies, each from the one row that calibrates it; bf16 first, because fp8 programs multiply in bf16 too."""
    found: dict[str, RatesConfig] = {}
    for row in sorted((row for row in rows if row.calibrates), key=lambda row: row.work.fp8):
        known = found.get(row.machine, RatesConfig())
        name = "fp8_efficiency" if row.work.fp8 else "bf16_efficiency"
        found[row.machine] = _with(known, name, efficiency(replace(row.work, rates=known), row.seconds))
    return found


def efficiency(work: Workload, seconds: float) -> float:
    """The share of the peak, in the workload's precision, at which its step takes so long; found by halving."""
    name = "fp8_efficiency" if work.fp8 else "bf16_efficiency"
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        slower = step_seconds(replace(work, rates=_with(work.rates, name, middle)))["total"] > seconds
        low, high = (middle, high) if slower else (low, middle)
    return high


def _with(known: RatesConfig, name: str, value: float) -> RatesConfig:
    changed: dict[str, Any] = {name: value}
    return replace(known, **changed)


def constants(rows: Sequence[Published]) -> Iterator[str]:
    """What was fitted: a line for each machine."""
    fitted = {(row.machine, row.work.fp8) for row in rows if row.calibrates}
    for machine, found in rates(rows).items():
        parts = [f"bf16 {found.bf16_efficiency:.3f}"] + [f"fp8 {found.fp8_efficiency:.3f}"] * ((machine, True) in fitted)
        yield f"fitted to one row each, share of the peak that products reach on {machine}: {', '.join(parts)}"


def memory_checks(rows: Sequence[Published]) -> Iterator[Check]:
    """Peaks that torchtitan's allocator reserved, and what NeMo's log calls allocated between steps: weights, gradients and optimizer."""
    first = next(row for row in rows if row.calibrates)
    memory = stage_memory(first.work, 0)
    state = sum(memory[part] for part in ("weights", "gradients", "optimizer"))
    source = "NVIDIA/dgxc-benchmarking 741c886, llama3.1/README.md: memory_allocated"
    yield Check(kind="memory", label=first.label, unit="GB", published=44.271689728, ours=state / 1e9, tolerance=0.01, source=source)
    for row in rows:
        if row.gib:
            ours = sharded_memory(row.work)["total"] / 2**30
            yield Check(kind="memory", label=row.label, unit="GiB", published=row.gib, ours=ours, tolerance=_PEAK, source=row.source)


def checkpoint_checks() -> Iterator[Check]:
    """NVIDIA's checkpoints hold the bf16 weights beside the 12 bytes a parameter that ours do."""
    for name, published in (("llama31_8b", 105.0), ("llama31_70b", 920.0), ("llama31_405b", 5.2 * 1024)):
        ours = model(name).parameters * _NEMO_CHECKPOINT / 2**30
        source = "NVIDIA/dgxc-benchmarking 741c886, llama3.1/README.md"
        yield Check(kind="checkpoint", label=name, unit="GiB", published=published, ours=ours, tolerance=0.01, source=source)


_NEMO_CHECKPOINT = 14
"""Bytes a parameter."""


def failure_checks() -> Iterator[Check]:
    """Mean times to failure, and effective training time ratios of 60 nodes."""
    for label, nodes, name, published in (
        ("16,384 GPUs at RSC-1's rate", 2048, "RSC-1", 1.803),
        ("Llama 3 405B", 2048, "Llama-3", 3.09),
        ("1,024 GPUs at RSC-1's rate", 128, "RSC-1", 28.8),
    ):
        ours = DAY / (nodes * RATES[name]) / 3600
        yield Check(kind="MTTF", label=label, unit="h", published=published, ours=ours, tolerance=0.005, source="Kokolis et al. 2025; arXiv 2407.21783")
    for name, figures in _ETTR.items():
        for (blocking, restart), (minutes, published) in zip(_SAVES, figures, strict=True):
            run = _sixty_nodes(RATES[name], 60 * minutes, 60 * blocking, 60 * restart)
            label, source = f"60 nodes, {name}, {blocking:g} min a save, {restart} min a restart", "Meta's formula (Kokolis et al. 2025)"
            yield Check(kind="ETTR", label=label, unit="", published=published, ours=expected(run).ettr, tolerance=0.003, source=source)
            yield Check(kind="interval", label=label, unit="min", published=minutes, ours=best_interval(run) / 60, tolerance=0.02, source="Young's optimum")


_SAVES = ((0.5, 10), (1, 10), (5, 20))
"""Minutes of a blocking save and of a restart."""
_ETTR = {
    "RSC-2": ((101, 0.989), (143, 0.985), (320, 0.967)),
    "Llama-3": ((80, 0.986), (113, 0.981), (252, 0.958)),
    "RSC-1": ((61, 0.981), (86, 0.974), (192, 0.944)),
}
"""For each of them the best interval in minutes, and the ratio."""


def _sixty_nodes(rate: float, interval: float, blocking: float, restart: float) -> Reliability:
    return Reliability(
        nodes=60, failures_per_node_day=rate, interval_seconds=interval, blocking_seconds=blocking, restart_seconds=restart, work_seconds=30 * DAY
    )


def ellama_checks() -> Iterator[Check]:
    """The flagship from its experiment file alone."""
    config = compose_config(["experiment=ellama_70b"])
    train, source = config.train, "e-Llama, arXiv 2501.09706, and eBay's account of it"
    yield Check(kind="e-Llama", label="tokens a step", unit="M", published=11.8, ours=train.tokens_per_step / 1e6, tolerance=0.005, source=source)
    yield Check(kind="e-Llama", label="steps", unit="", published=85_000, ours=train.steps, tolerance=0.005, source=source)
    yield Check(
        kind="e-Llama", label="GPU-hours (with its production factor)", unit="k", published=340, ours=_hours(config) / 1e3, tolerance=0.02, source=source
    )


def _hours(config: RunConfig) -> float:
    return gpu_hours(config, step_seconds(workload(config))["total"])["total"]


def explained(rows: Sequence[Published]) -> Iterator[tuple[str, float]]:
    """(what, GPU-hours): from the published rate of a 70B to e-Llama's month, what each difference adds."""
    config = compose_config(["experiment=ellama_70b"])
    reference = next(row for row in rows if row.work.model.name == "llama31_70b" and not row.work.fp8)
    tokens = config.train.train_tokens
    at_reference = tokens / (reference.work.global_batch_size * reference.work.sequence_length / reference.seconds / reference.work.world_size) / 3600
    cost = gpu_hours(config, step_seconds(workload(config))["total"])
    yield f"at the published rate of {reference.label}", at_reference
    yield "this layout, TP 8 without pieces or chunks, by the roofline", cost["steps"] - at_reference
    yield "saves, failures, restarts", cost["saves"] + cost["failures"] + cost["spares"]
    yield f"production x {config.cluster.rates.production:g}: no published cause; the factor that makes up e-Llama's 340k", cost["production"]
