"""Evaluates the base and the last checkpoint of a run, through the engine that trained it."""

from __future__ import annotations

import time
from collections.abc import Callable

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.paths import RunPaths
from cpt.core.records import EvaluationRecord
from cpt.data.manifest import open_manifest, tokenizer_path
from cpt.data.mixture import open_heldout
from cpt.evaluate.forgetting import Comparison, compare
from cpt.evaluate.heldout import heldout_losses
from cpt.evaluate.multiple_choice import Subject, go_offline, score_benchmarks

WEIGHTS = {"before": "base", "after": "latest"}


def evaluate_both(run: RunPaths, observe: Callable[[str], None]) -> Comparison:
    """Leave `evaluation/before.json` (kept when it is there: the base does not change) and `after.json`, and compare them."""
    config = read_config(run.config)
    if run.evaluation("before").exists():
        observe("before: kept, the base does not change")
        before = EvaluationRecord.load(run.evaluation("before"))
    else:
        before = _evaluate_and_say(run, config, "before", observe)
    return compare(before, _evaluate_and_say(run, config, "after", observe))


def _evaluate_and_say(run: RunPaths, config: RunConfig, label: str, observe: Callable[[str], None]) -> EvaluationRecord:
    observe(f"{label}: evaluating {WEIGHTS[label]} weights")
    record = evaluate_run(run, config, label)
    observe(f"{label}: step {record.step}, {record.weights}, {record.seconds:.0f} s")
    return record


def evaluate_run(run: RunPaths, config: RunConfig, label: str) -> EvaluationRecord:
    """Evaluate and save. `label` is `before` (the base) or `after` (the last complete checkpoint)."""
    go_offline()
    from cpt.train import open_session

    begin, manifest, data = time.monotonic(), open_manifest(config), config.runs.data(config.corpus.name)
    session = open_session(config, run, weights=WEIGHTS[label])
    try:
        losses = heldout_losses(session.token_losses, open_heldout(config, manifest), manifest)
        subject = Subject(session.logits, tokenizer_path(config), config.model.end_of_document, config.model.longest_sequence)
        files = {name: data.benchmark(name) for name in manifest.benchmarks}
        benchmarks = score_benchmarks(subject, files, config.evaluate.benchmark_items)
    finally:
        session.close()
    record = EvaluationRecord(label=label, step=session.step, weights=session.source, losses=losses, benchmarks=benchmarks, seconds=time.monotonic() - begin)
    record.save(run.evaluation(label))
    return record
