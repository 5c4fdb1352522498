"""The first screen: what to be careful about, and the numbers that a manager asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cpt.config.model import BaseSource
from cpt.config.running import Scheduler
from cpt.core import units
from cpt.core.attempts import Ending
from cpt.evaluate.forgetting import MacroDelta
from cpt.report import measures
from cpt.report.attempts import NO_WORD, restarts
from cpt.report.facts import Facts
from cpt.report.page import Card, Html, cards, signed, warnings
from cpt.sweep.collect import setting

LOST = (Ending.node_lost, NO_WORD)
"""Endings that took a node, or the supervisor with it."""

MIXTURE_TOLERANCE = 0.02
"""Planned and read share of a source may differ by two points before the page says so."""


def warning_list(facts: Facts) -> Html:
    """All warnings, most basic first."""
    return warnings([*_about_the_base(facts), *_about_the_run(facts), *_about_the_results(facts), *_about_the_data(facts), *facts.damaged])


def _about_the_base(facts: Facts) -> Iterator[str]:
    model = facts.config.model
    if model.base_source is BaseSource.gguf_package:
        yield (
            f"The base is not the original checkpoint: {model.base_path} is the instruct model, dequantized from 4 bit. "
            "Its losses are not the original's, and part of a gain may be repair of that damage."
        )
    if model.base_source is BaseSource.random:
        yield "The base has random weights: this is a rehearsal, its losses say nothing about a real model."


def _about_the_run(facts: Facts) -> Iterator[str]:
    if not facts.finished:
        reason = f"it stopped at step {facts.stopped.step} ({facts.stopped.reason})" if facts.stopped else f"it is at step {measures.last_step(facts)}"
        yield f"The run is not finished: {reason} of {facts.config.train.steps}."
    if facts.config.cluster.scheduler is Scheduler.local:
        yield "No SLURM: ranks were processes of this machine. A rank could die and resume, a node could not."
    if facts.parity is None:
        yield "The parity gate left no record: nobody compared the engine's logits with the base's."
    elif not facts.parity.passed:
        yield f"The engine's logits differ from the base's by {facts.parity.logit_difference:.1e} of the largest, more than {facts.parity.tolerance:.0e}."
    if any(not math.isfinite(row.values.get("train/loss", 0.0)) for row in facts.rows):
        yield "The training loss was not finite at some step."
    planned, measured = facts.plan.step_seconds if facts.plan else 0.0, measures.step_seconds(facts)
    if planned and measured and measured > 1.5 * planned:
        yield f"Steps took {measured:.1f} s, {measured / planned:.1f} times what the plan assumed."


def _about_the_results(facts: Facts) -> Iterator[str]:
    limit = facts.config.sweep.forgetting_limit
    worst = facts.forgotten()
    if worst and worst[1] > limit:
        yield f"Held-out loss of the general source {worst[0]} rose by {worst[1]:.3f} nats a token, more than the limit of {limit:g}."
    if "general" not in facts.groups.values():
        yield "There is no general source, so forgetting was not measured."
    if facts.comparison is None:
        yield "Held-out losses before and after come from training or are missing; benchmarks were not run (cpt evaluate)."
    for score in facts.comparison.benchmarks if facts.comparison else []:
        if score.verdict == "worse":
            yield f"Benchmark {score.name} is worse beyond two standard errors: {100 * score.delta:+.1f} ± {100 * score.standard_error:.1f} points."
        error = math.sqrt(score.chance * (1 - score.chance) / score.items)
        if max(score.before, score.after) - score.chance < 2 * error:
            yield f"Benchmark {score.name} is at chance level ({100 * score.chance:.0f}%) before and after: it cannot show gain or loss."
    if facts.sweep and (facts.sweep.reason.startswith("every trial forgets") or facts.sweep.base_general_loss is None):
        yield f"The sweep's choice is a compromise: {facts.sweep.reason}."
    yield from facts.sweep.notes if facts.sweep else []
    if differences := _differs_from_choice(facts):
        yield f"This run does not have the setting that the sweep chose: {differences}."
    promised = None if differences else _promised(facts)
    if worst and promised is not None and promised <= limit < worst[1]:
        risen = f"general source {worst[0]} by {signed(worst[1], 3)}"
        yield f"In the chosen trial no general source rose more than {signed(promised, 3)}, in the run {risen}: the short trial did not foresee it."


def _differs_from_choice(facts: Facts) -> str:
    """Settings of the chosen trial that the run does not have; empty when it has them all."""
    rows = [row for row in facts.sweep.rows if row.index == facts.sweep.chosen] if facts.sweep else []
    pairs = [(key, value, setting(facts.config, key)) for row in rows for key, value in row.settings.items()]
    return ", ".join(f"{key} is {mine}, chosen was {theirs}" for key, theirs, mine in pairs if mine != theirs)


def _promised(facts: Facts) -> float | None:
    """Largest rise of a general source in the chosen trial."""
    rows = [row for row in facts.sweep.rows if row.index == facts.sweep.chosen] if facts.sweep else []
    return rows[0].forgotten[1] if rows and rows[0].forgotten else None


def _about_the_data(facts: Facts) -> Iterator[str]:
    for source in facts.manifest.sources if facts.manifest else []:
        if "fallback" in source.origin.lower():
            yield f"Source {source.name} is a substitute: {source.origin}."
    shares = measures.consumed_shares(facts)
    for share in facts.record.mixture.shares if facts.record and shares else []:
        if abs(shares.get(share.name, 0.0) - share.weight) > MIXTURE_TOLERANCE:
            yield f"Source {share.name} was read as {100 * shares.get(share.name, 0.0):.1f}% of tokens, planned were {100 * share.weight:.1f}%."


def headline_cards(facts: Facts) -> Html:
    """Eight numbers."""
    return cards(
        [
            _loss_card(facts, "domain"),
            _loss_card(facts, "general"),
            _benchmark_card(facts, "domain"),
            _benchmark_card(facts, "general"),
            _progress_card(facts),
            _restart_card(facts),
            _outage_card(facts),
            _cost_card(facts),
        ]
    )


def _loss_card(facts: Facts, group: str) -> Card:
    label = f"{group.capitalize()} held-out loss"
    change, source = facts.group_change(group)
    if change is None:
        return Card(label, "not run", "cpt evaluate measures it")
    detail = f"{change.before:.3f} → {change.after:.3f} nats a token; {source}"
    worst = facts.forgotten() if group == "general" else None
    if worst is None:
        return Card(label, signed(change.delta, 3), detail, "good" if change.delta <= 0 else "bad")
    limit = facts.config.sweep.forgetting_limit
    detail += f"; worst source {worst[0]} {signed(worst[1], 3)}, limit {signed(limit, 2)}"
    return Card(label, signed(change.delta, 3), detail, "good" if worst[1] <= limit else "bad")


def _benchmark_card(facts: Facts, group: str) -> Card:
    label = f"{group.capitalize()} benchmarks"
    macro: MacroDelta | None = next((item for item in facts.comparison.macros if item.group == group), None) if facts.comparison else None
    if macro is None or facts.comparison is None:
        return Card(label, "not run", "cpt evaluate measures them")
    chosen = [score for score in facts.comparison.benchmarks if score.group == group]
    names = ", ".join(f"{score.name} {100 * score.before:.0f} → {100 * score.after:.0f}%" for score in chosen)
    clear = abs(macro.delta) > 2 * macro.standard_error
    tone = ("good" if macro.delta > 0 else "bad") if clear else "plain"
    note = "" if clear else "; within noise"
    return Card(
        label, f"{signed(100 * macro.delta)} ± {100 * macro.standard_error:.1f}", f"points, {sum(score.items for score in chosen)} items: {names}{note}", tone
    )


def _progress_card(facts: Facts) -> Card:
    steps, total = measures.last_step(facts), facts.config.train.steps
    return Card(
        "Training", f"{steps} / {total} steps", f"{units.count(measures.consumed_tokens(facts))} tokens; {'finished' if facts.finished else 'not finished'}"
    )


def _restart_card(facts: Facts) -> Card:
    if not facts.attempts:
        return Card("Restarts", "not run", "no attempt has begun")
    found = restarts(facts.attempts)
    lost = sum(item.before.lost_steps for item in found)
    reasons = ", ".join(f"{item.before.ending} → {item.after.path or '?'}" for item in found) or "none needed"
    return Card("Restarts", str(len(found)), f"{reasons}; {lost} step(s) computed again")


def _outage_card(facts: Facts) -> Card:
    label = "Power loss to next step" if facts.config.cluster.scheduler is Scheduler.slurm else "Kill to next step"
    if facts.drill and facts.drill.seconds_to_next_step:
        return Card(label, f"{facts.drill.seconds_to_next_step:.0f} s", f"{facts.drill.what} at step {facts.drill.step}, on purpose")
    losses = [item.seconds for item in restarts(facts.attempts) if item.before.ending in LOST and item.seconds is not None]
    if not losses:
        return Card(label, "none", "no attempt was lost with its node")
    several = f"worst of {len(losses)}; " if len(losses) > 1 else ""
    return Card(label, f"{max(losses):.0f} s", f"{several}from the last step to the next")


def _cost_card(facts: Facts) -> Card:
    if not facts.attempts:
        return Card("Cost", "not run", "no attempt has begun")
    word, ranks = measures.device_word(facts), measures.world_size(facts)
    plan = f"; plan {facts.plan.gpu_hours:.2g}" if facts.plan else ""
    return Card("Cost", f"{measures.rank_hours(facts):.2f} {word.split()[-1]}-h", f"{units.duration(measures.wall_seconds(facts))} on {ranks} {word}s{plan}")
