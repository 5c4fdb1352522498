"""Facts in, one file out."""

from __future__ import annotations

from pathlib import Path

from cpt.core import units
from cpt.core.artifacts import write_text
from cpt.core.paths import RunPaths
from cpt.report import anomalies, headline, provenance, results, seating, training
from cpt.report.facts import Facts, read_facts
from cpt.report.page import document, join

SECTIONS = (
    headline.warning_list,
    headline.headline_cards,
    results.losses,
    results.trade,
    results.benchmarks,
    training.loss_curves,
    anomalies.stood_out,
    training.restarts,
    training.speed,
    seating.seating,
    training.checkpoints,
    training.gates,
    results.sweep,
    provenance.data,
    provenance.mixture,
    provenance.commands,
    provenance.identity,
)


def write_report(run: RunPaths, sweep: str = "") -> Path:
    """Write `report.html` into the run directory; `sweep` names one that the run's own command does not. Raises `UserError` without a config."""
    facts = read_facts(run, sweep)
    write_text(run.report, render(facts))
    return run.report


def render(facts: Facts) -> str:
    """The page."""
    config = facts.config
    subtitle = (
        f"Continued pretraining of {config.model.name} on {config.corpus.name}: {units.count(config.train.train_tokens)} tokens, "
        f"{100 * config.mixture.domain_share:g}% domain, peak learning rate {config.optimizer.lr_ratio:g} of the base's own"
    )
    return document(f"Run {facts.run.root.name}", subtitle, join(section(facts) for section in SECTIONS))
