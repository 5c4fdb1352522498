"""What a run measured of its machines, as `cluster.rates`: `cpt plan --calibrate RUN`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from cpt.config.hardware import RatesConfig
from cpt.core.attempts import Ending
from cpt.core.errors import Problem, UserError
from cpt.plan.validate import efficiency
from cpt.plan.workload import workload
from cpt.report import measures
from cpt.report.attempts import NO_WORD
from cpt.report.facts import Facts
from cpt.tracking.goodput import Kind

DAY = 86_400.0
_LEAST_STEPS = 10
"""Steps that count, below which their median says little: the first ones compile, allocate and warm caches."""


_ALL = 1 - 1e-9
"""An efficiency that says that the whole peak would not do."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One of the rates, before and after; `why` says what it was measured on."""

    name: str
    before: float
    after: float
    why: str


def calibrate(facts: Facts) -> tuple[RatesConfig, list[Constant]]:
    """The cluster's rates with those replaced that the run measured. Raises `UserError` for a run of too few steps."""
    found = list(_constants(facts))
    before = facts.config.cluster.rates
    source = f"run {facts.run.root.name}, {measures.last_step(facts)} steps on {facts.config.slurm.nodes} node(s)"
    measured: dict[str, Any] = {constant.name: constant.after for constant in found}
    return replace(before, source=source, **measured), found


def rates_yaml(rates: RatesConfig) -> str:
    """A choice of the group `cluster/rates`."""
    import yaml

    return f"# Written by `cpt plan --calibrate`.\n{yaml.safe_dump(asdict(rates), sort_keys=False)}"


def _constants(facts: Facts) -> Iterator[Constant]:
    steps, seconds = len(facts.series("train/step_seconds")), measures.step_seconds(facts)
    if seconds is None or steps < _LEAST_STEPS:
        why = f"a median needs {_LEAST_STEPS}: the first ones warm up"
        raise UserError(Problem(where=str(facts.run.root), what=f"has {steps} measured step(s)", why=why, fix="a run that has got further"))
    yield _efficiency(facts, seconds, steps)
    yield from _saves(facts)
    yield from _times(facts, seconds, steps)
    yield _failures(facts)


def _efficiency(facts: Facts, seconds: float, steps: int) -> Constant:
    work = workload(facts.config)
    if (found := efficiency(work, seconds)) >= _ALL:
        why = "that is faster than its matrices could be multiplied, and the rest streamed, at the full peak"
        fix = "cluster.hardware as the machines' data sheet says"
        raise UserError(Problem(where="cluster.hardware", what=f"does not allow a step of {seconds:.3g} s", why=why, fix=fix))
    name = "fp8_efficiency" if work.fp8 else "bf16_efficiency"
    return Constant(name, getattr(work.rates, name), found, f"{steps} steps, median {seconds:.3g} s")


def _saves(facts: Facts) -> Iterator[Constant]:
    rates, slurm = facts.config.cluster.rates, facts.config.slurm
    saved = [event.fields for event in facts.events if event.name == "checkpoint_saved" and event.fields.get("seconds")]
    if saved:
        rate = median(float(fields["bytes_per_second"]) for fields in saved)
        yield Constant("storage_bandwidth", rates.storage_bandwidth, rate, f"{len(saved)} saves of the whole job")
        yield Constant("node_storage_bandwidth", rates.node_storage_bandwidth, rate / slurm.nodes, f"over {slurm.nodes} node(s)")
    staged = [float(event.fields["seconds"]) for event in facts.events if event.name == "checkpoint_staged" and event.fields.get("seconds")]
    if staged and saved:
        rate = median(float(fields["bytes"]) for fields in saved) / slurm.world_size / median(staged)
        yield Constant("copy_bandwidth", rates.copy_bandwidth, rate, f"{len(staged)} copies to host memory")


def _times(facts: Facts, seconds: float, steps: int) -> Iterator[Constant]:
    """Restarts from the second attempt on; waits in the queue where one came after the first."""
    spent, rates = measures.spent(facts), facts.config.cluster.rates
    if spent is None:
        return
    training = spent.seconds(Kind.useful) + spent.seconds(Kind.evaluating)
    yield Constant("production", rates.production, max(1.0, training / (steps * seconds)), "steps and evaluations over steps x median")
    restarts = len(facts.attempts) - 1
    if restarts > 0:
        lost = spent.seconds(Kind.starting) * restarts / len(facts.attempts) + spent.seconds(Kind.idle)
        yield Constant("restart_seconds", rates.restart_seconds, lost / restarts, f"{restarts} restart(s): idle and starting")
    waits = _waits(facts)
    if waits:
        yield Constant("queue_seconds", rates.queue_seconds, median(waits), f"{len(waits)} time(s) back through the queue")


def _waits(facts: Facts) -> Sequence[float]:
    return [after.begin - before.end for before, after in zip(facts.attempts, facts.attempts[1:], strict=False) if before.job != after.job]


def _failures(facts: Facts) -> Constant:
    """With the old rate as one failure's worth of experience (Gamma prior): a short run without failures does not make machines perfect."""
    rates, slurm = facts.config.cluster.rates, facts.config.slurm
    days = measures.wall_seconds(facts) / DAY * slurm.nodes
    failed = sum(1 for attempt in facts.attempts if attempt.ending in FAILED)
    prior = 1 / rates.failures_per_node_day if rates.failures_per_node_day else 0.0
    after = (failed + 1) / (days + prior) if prior else (failed / days if days else 0.0)
    return Constant("failures_per_node_day", rates.failures_per_node_day, min(1.0, after), f"{failed} failure(s) in {days:.3g} node-days")


FAILED = (Ending.node_lost, Ending.launch_failure, Ending.rank_crash, Ending.hang, NO_WORD)
"""Endings that a node or its software brought about, not a human, a time limit or the end."""
