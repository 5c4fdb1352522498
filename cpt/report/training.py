"""Sections about how it went: curves, restarts, speed against the plan, checkpoints, gates."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from cpt.core import units
from cpt.core.nodes import fold
from cpt.report import attempts, curves, measures
from cpt.report.facts import Facts
from cpt.report.page import EMPTY, Html, not_run, pairs, picture, section, table
from cpt.report.timeline import timeline
from cpt.tracking.goodput import Kind


def loss_curves(facts: Facts) -> Html:
    """Training and held-out loss over steps."""
    title = "Loss over steps"
    if not curves.has(facts, ["train/loss"]):
        return section(title, not_run("Training", "cpt launch"))
    return section(
        title,
        picture(curves.train_loss(facts), "Training loss: the whole batch, and the sequences of each source. Dotted: where a later attempt went on."),
        picture(curves.heldout_loss(facts), "Held-out loss during training.") if curves.has(facts, ["heldout/loss/domain", "heldout/loss/general"]) else EMPTY,
        picture(curves.optimizer(facts), "Learning rate and gradient norm (before clipping)."),
    )


def restarts(facts: Facts) -> Html:
    """Attempts on the wall clock, and a line each."""
    title = "Restarts on the time axis"
    if not facts.attempts:
        return section(title, not_run("No attempt has begun", f"sbatch {facts.run.script}"))
    found = {item.after.number: item.seconds for item in attempts.restarts(facts.attempts)}
    rows = [
        (
            str(attempt.number),
            attempt.path,
            _seconds(found.get(attempt.number)),
            fold(attempt.nodes),
            attempt.ending,
            f"{attempt.resume_step} → {attempt.last_step}",
            str(attempt.lost_steps),
            units.duration(attempt.end - attempt.begin),
            attempt.message,
        )
        for attempt in facts.attempts
    ]
    columns = ("attempt", "came by", "back in", "nodes", "ended", "steps", "lost steps", "lasted", "what was said")
    lead = (
        f"{len(rows)} attempt(s) in {units.duration(measures.wall_seconds(facts))}. Came by: relaunch is inside the allocation, requeue and chain are through the queue. "
        "Back in: from the last step done before an attempt to its own first."
    )
    drawn = picture(
        timeline(facts.attempts, facts.drill),
        "Steps on the wall clock. Red: computed, and lost with the attempt. Gray: from the last step to the next.",
    )
    return section(title, drawn, table(columns, rows, words=(0, 1, 3, 4, 8)), _goodput(facts), lead=lead)


def _goodput(facts: Facts) -> Html:
    """Seconds by kind; they add up to the time since the submission."""
    spent = measures.spent(facts)
    if spent is None:
        return EMPTY
    kinds = [kind for kind in Kind if spent.milliseconds[kind]]
    shares = ["share", *(f"{100 * spent.share(kind):.1f}%" for kind in kinds), "100%"]
    seconds = ["time", *(units.duration(spent.seconds(kind)) for kind in kinds), units.duration(spent.wall / 1000)]
    return table(("since the submission", *map(str, kinds), "in all"), [seconds, shares])


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} s"


def speed(facts: Facts) -> Html:
    """Throughput, and the plan beside what was measured."""
    title = "Speed, and the plan"
    if not curves.has(facts, ["train/tokens_per_second"]):
        return section(title, not_run("Training", "cpt launch"))
    rows = list(_against_plan(facts))
    plan = table(("", "planned", "measured"), rows) if facts.plan else not_run("Plan", "cpt plan")
    return section(title, picture(curves.throughput(facts), "Tokens a second at each step, save and evaluation not counted."), plan)


def _against_plan(facts: Facts) -> Iterator[tuple[str, str, str]]:
    plan, train = facts.plan, facts.config.train
    seconds, rate, used = measures.step_seconds(facts), measures.tokens_per_second(facts), measures.utilization(facts)
    if plan is None or seconds is None or rate is None:
        return
    saves = [event.fields for event in facts.events if event.name == "checkpoint_saved"]
    yield "steps", str(plan.steps), str(measures.last_step(facts))
    yield "tokens", f"{plan.train_tokens:,}", f"{measures.consumed_tokens(facts):,}"
    yield "seconds a step (median)", f"{plan.step_seconds:.2f}", f"{seconds:.2f}"
    yield "tokens a second", f"{train.tokens_per_step / plan.step_seconds:,.0f}", f"{rate:,.0f}"
    if used is not None:
        yield "model FLOPs utilization, causal convention", f"{plan.mfu:.1%}", f"{used:.1%}"
    yield "hours on the clock", f"{plan.hours:.2f}", f"{measures.wall_seconds(facts) / 3600:.2f}"
    yield f"{measures.device_word(facts)}-hours", f"{plan.gpu_hours:.2f}", f"{measures.rank_hours(facts):.2f}"
    yield "checkpoints written", str(plan.checkpoints), str(len(saves))
    if saves:
        yield "bytes a checkpoint", units.size(plan.checkpoint_bytes), units.size(median(float(item["bytes"]) for item in saves))
        yield "seconds until a checkpoint is durable", f"{plan.save_seconds:.2f}", f"{median(float(item['seconds']) for item in saves):.2f}"
    yield "restarts", f"{plan.restarts:.1f}", str(max(0, len(facts.attempts) - 1))
    if (spent := measures.spent(facts)) and spent.wall:
        yield "effective training time (steps over the clock)", f"{plan.ettr:.1%}", f"{spent.share(Kind.useful):.1%}"


def checkpoints(facts: Facts) -> Html:
    """Every save that completed."""
    title = "Checkpoints"
    rows = [
        (
            str(event.attempt),
            str(event.fields["step"]),
            units.duration(float(event.fields["seconds"])),
            units.duration(_blocked(event.fields)),
            units.size(float(event.fields["bytes"])),
        )
        for event in facts.events
        if event.name == "checkpoint_saved"
    ]
    if not rows:
        return section(title, not_run("No checkpoint was saved", f"touch {facts.run.triggers}/save"))
    shown = rows if len(rows) <= 12 else [*rows[:4], ("…", "…", f"{len(rows) - 8} more", "…", "…"), *rows[-4:]]
    saves = [event.fields for event in facts.events if event.name == "checkpoint_saved"]
    seconds, blocked = median(float(fields["seconds"]) for fields in saves), median(map(_blocked, saves))
    lead = (
        f"{len(rows)} complete saves, median {units.duration(seconds)}, for which training waited {units.duration(blocked)}; "
        f"one every {facts.config.checkpoint.interval} steps, the last {facts.config.checkpoint.keep_last} kept."
    )
    return section(title, table(("attempt", "step", "took", "training waited", "size"), shown), lead=lead)


def _blocked(fields: dict[str, Any]) -> float:
    """Seconds: to copy the state, and to wait for a save that was still being written."""
    return float(fields["staging"]) + float(fields["waited"])


def gates(facts: Facts) -> Html:
    """Parity before the first step, and the export after the last."""
    parity, exported = facts.parity, facts.exported
    first = not_run("Parity gate", "cpt base")
    if parity:
        verdict = "passed" if parity.passed else "FAILED"
        first = pairs(
            [
                (
                    "engine against base",
                    f"{verdict}: largest logit difference {parity.logit_difference:.2e} of the largest logit, allowed {parity.tolerance:.0e}, fp32, {parity.tokens} tokens",
                ),
                ("loss on that text", f"engine {parity.engine_loss:.5f}, base {parity.base_loss:.5f}"),
                ("layout", parity.layout),
            ]
        )
    second = not_run("Export", f"cpt export --run {facts.run.root}")
    if exported:
        second = pairs(
            [
                ("export against engine", f"largest logit difference {exported.logit_difference:.2e} of the largest logit, allowed {exported.tolerance:.0e}"),
                ("from", f"{exported.checkpoint}, step {exported.step}"),
                ("transformers says", exported.sample),
                ("files", ", ".join(f"{name} ({digest[:12]})" for name, digest in sorted(exported.files.items()))),
            ]
        )
    return section("The two gates: import and export", first, second)
