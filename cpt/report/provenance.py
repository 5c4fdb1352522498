"""Sections about where it comes from: data, mixture, commands, versions, the sealed config."""

from __future__ import annotations

import shlex

from cpt.core import units
from cpt.report import measures, tradeoff
from cpt.report.facts import Facts
from cpt.report.page import EMPTY, Html, code, folded, not_run, pairs, picture, section, table


def data(facts: Facts) -> Html:
    """What was prepared, and why documents are gone."""
    title = "Data"
    if facts.manifest is None:
        return section(title, not_run("Prepare", f"cpt prepare corpus={facts.config.corpus.name}"))
    manifest = facts.manifest
    rows, origins = [], []
    for source in manifest.sources:
        dropped = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in sorted(source.dropped.items(), key=lambda item: -item[1])) or "none"
        kept = f"{source.train.documents:,} + {source.heldout.documents:,}"
        tokens = f"{units.count(source.train.tokens)} + {units.count(source.heldout.tokens)}"
        name = f"{source.name} ({source.group}, {source.language})"
        rows.append((name, f"{source.documents_read:,}", kept, tokens, dropped))
        origins.append((source.name, source.license or "not stated", source.origin))
    columns = ("source", "read", "kept: train + held out", "tokens", "dropped")
    benchmarks = ", ".join(f"{name} ({count})" for name, count in manifest.benchmarks.items()) or "none"
    lead = f"Corpus {manifest.corpus}, prepared in {units.duration(manifest.seconds)}. Benchmarks built beside it: {benchmarks}."
    return section(title, table(columns, rows, words=(0, 4)), table(("source", "license", "origin"), origins, words=(0, 1, 2), wide=True), lead=lead)


def mixture(facts: Facts) -> Html:
    """Planned shares and what was read."""
    title = "Mixture: planned and read"
    plan = facts.record.mixture if facts.record else facts.plan.mixture if facts.plan else None
    if plan is None:
        return section(title, not_run("Launch", "cpt launch"))
    read = measures.consumed_shares(facts)
    rows = [
        (
            share.name,
            share.group,
            share.language,
            f"{100 * share.weight:.1f}%",
            f"{100 * read[share.name]:.1f}%" if share.name in read else "not run",
            f"{share.planned_tokens:,}",
            f"{share.available_tokens:,}",
            f"{share.epochs:.2f}",
        )
        for share in plan.shares
    ]
    columns = ("source", "group", "language", "planned", "read", "planned tokens", "available", "epochs")
    drawn = picture(tradeoff.mixture_bars(plan.weights, read, facts.groups), "Share of tokens per source.") if read else EMPTY
    return section(
        title,
        drawn,
        table(columns, rows, words=(0, 1, 2)),
        lead="Shares are of tokens. Samples are assigned so that the read shares follow the planned ones at every step.",
    )


def commands(facts: Facts) -> Html:
    """What was typed, as recorded, and what continues from here."""
    typed = [shlex.join(record.command) for record in (facts.sweep_record, facts.record) if record]
    block = code("\n".join(typed)) if typed else not_run("No command was recorded", "cpt launch")
    run = shlex.quote(str(facts.run.root))
    again = code(f"sbatch {shlex.quote(str(facts.run.script))}\ncpt evaluate --run {run}\ncpt export --run {run}\ncpt report --run {run}")
    return section("Commands", block, folded("Continue, evaluate, export and report from this directory", again))


def identity(facts: Facts) -> Html:
    """Names, versions and the whole config."""
    config, record = facts.config, facts.record
    rows: list[tuple[str, str]] = [
        ("run directory", str(facts.run.root)),
        ("model", f"{config.model.name}, {units.count(config.model.parameters)} parameters"),
        ("batch", f"{config.train.global_batch_size} x {config.train.sequence_length} = {units.count(config.train.tokens_per_step)} tokens a step"),
        ("peak learning rate", f"{config.peak_lr:.3g} = {config.optimizer.lr_ratio:g} x the base's {config.model.base_peak_lr:g}"),
        ("layout", _layout(facts)),
        ("seed", str(config.seed)),
    ]
    if record:
        rows += [("created", record.created), ("fingerprint", record.fingerprint), ("data hash", record.mixture.data_hash)]
    versions = (record.versions if record else {}) | (facts.manifest.versions if facts.manifest else {})
    rows += [("versions", ", ".join(f"{name} {value}" for name, value in sorted(versions.items())) or "not recorded")]
    return section("Identity", pairs(rows), folded("The sealed config", code(facts.run.config.read_text())))


def _layout(facts: Facts) -> str:
    last = facts.attempts[-1].begin_fields if facts.attempts else {}
    seen = [str(last[name]) for name in ("layout", "attention", "device") if last.get(name)]
    parallel = facts.config.parallel
    return ", ".join(seen) or f"TP{parallel.tensor_parallel_size} x PP{parallel.pipeline_parallel_size} on {facts.config.slurm.world_size} ranks (configured)"
