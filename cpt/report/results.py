"""Sections about what came out: losses, benchmarks, the sweep, the trade."""

from __future__ import annotations

from cpt.core.records import TrialRow
from cpt.report import tradeoff
from cpt.report.facts import Facts
from cpt.report.page import EMPTY, Html, join, not_run, paragraph, picture, section, signed, table


def losses(facts: Facts) -> Html:
    """Held-out loss before and after, per source and group."""
    if facts.comparison is None:
        return section("What it learned and what it forgot", not_run("Evaluation before and after", f"cpt evaluate --run {facts.run.root}"))
    rows = [
        (
            change.name if change in facts.comparison.sources else f"{change.name} (mean of sources)",
            change.group,
            f"{change.before:.4f}",
            f"{change.after:.4f}",
            signed(change.delta, 4),
            f"{change.bits_before:.3f}",
            f"{change.bits_after:.3f}",
        )
        for change in [*facts.comparison.sources, *facts.comparison.groups]
    ]
    marked = range(len(facts.comparison.sources), len(rows))
    columns = ("source", "group", "before", "after", "change", "bits/byte before", "after")
    return section(
        "What it learned and what it forgot",
        picture(tradeoff.before_and_after(facts.comparison), "Held-out loss per source, before and after."),
        table(columns, rows, words=(0, 1), marked=list(marked)),
        lead="Held-out text was split off after deduplication, and training never sees it. Loss is in nats a token, bits per byte compare across tokenizers.",
    )


def benchmarks(facts: Facts) -> Html:
    """Multiple choice, paired item by item."""
    title = "Benchmarks"
    if facts.comparison is None:
        return section(title, not_run("Benchmarks", f"cpt evaluate --run {facts.run.root}"))
    if not facts.comparison.benchmarks:
        return section(title, not_run("Benchmarks", "cpt prepare with corpus.benchmarks set"))
    rows = [
        (
            score.name,
            score.group,
            f"{100 * score.before:.1f}%",
            f"{100 * score.after:.1f}%",
            f"{signed(100 * score.delta)} ± {100 * score.standard_error:.1f}",
            str(score.forgotten),
            str(score.gained),
            str(score.items),
            f"{100 * score.chance:.0f}%",
            score.verdict,
        )
        for score in facts.comparison.benchmarks
    ]
    columns = ("benchmark", "group", "before", "after", "change, points", "forgotten", "gained", "items", "chance", "verdict")
    return section(
        title,
        table(columns, rows, words=(0, 1, 9)),
        lead="The same items before and after. Forgotten: right before, wrong after; gained: the reverse. The error is the paired standard error; a verdict needs two.",
    )


def sweep(facts: Facts) -> Html:
    """Trials, the decision, and its reason."""
    title = "The sweep that chose the setting"
    if facts.sweep is None:
        return section(title, not_run("Sweep", "cpt train -m hydra/launcher=slurm ...; cpt sweep; then name it: cpt report --run DIR --sweep NAME"))
    found = facts.sweep
    keys = tradeoff.axes_of(found) or sorted({key for row in found.rows for key in row.settings})
    rows = sorted(found.rows, key=lambda row: (row.domain_loss is None, row.domain_loss or 0.0))
    lines = [("base", *[""] * len(keys), "", _number(found.base_domain_loss), _number(found.base_general_loss), "")]
    lines += [_trial(row, keys) for row in rows]
    marked = [index + 1 for index, row in enumerate(rows) if row.index == found.chosen]
    done = any(row.domain_loss is not None for row in rows)
    decision = f"Chosen: trial {found.chosen:03d}, {found.reason}." if found.chosen is not None else f"Nothing chosen: {found.reason}."
    return section(
        title,
        picture(
            tradeoff.heat_map(found),
            "Held-out loss of each trial: green fell, red rose against the base, for the general side by its worst source. The frame is the chosen one.",
        )
        if done and tradeoff.axes_of(found)
        else EMPTY,
        table(("trial", *keys, "state", "domain", "general", "worst source"), lines, words=(0, len(keys) + 1), marked=marked),
        lead=f"Sweep {found.name}, {len(rows)} trials. {decision}",
    )


def _trial(row: TrialRow, keys: list[str]) -> tuple[str, ...]:
    rise = f"{row.forgotten[0]} {signed(row.forgotten[1], 4)}" if row.forgotten else ""
    return (f"{row.index:03d}", *(str(row.settings.get(key, "")) for key in keys), row.state, _number(row.domain_loss), _number(row.general_loss), rise)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def trade(facts: Facts) -> Html:
    """Gain against forgetting, trials and run in one picture."""
    title = "Domain gain against general loss"
    domain, source = facts.group_change("domain")
    worst = facts.forgotten()
    run = (worst[1], -domain.delta) if domain and worst else None
    if run is None and facts.sweep is None:
        return section(title, not_run("Neither a sweep nor an evaluation", f"cpt evaluate --run {facts.run.root}"))
    notes = []
    if run:
        notes.append(f"This run: {source}.")
    if facts.sweep and run:
        notes.append("Trials are shorter than the run and are measured during training, so compare trials with trials.")
    return section(
        title,
        picture(
            tradeoff.scatter(facts.sweep, run, facts.config.sweep.forgetting_limit),
            "Upper left is best. The base is the origin, the dashed line the allowed rise of any general source.",
        ),
        join([paragraph(" ".join(notes), "lead")]) if notes else EMPTY,
    )
