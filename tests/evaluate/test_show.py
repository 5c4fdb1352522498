"""The comparison on a terminal of the usual width."""

from __future__ import annotations

import io

from rich.console import Console

from cpt.core.records import BenchmarkScore, EvaluationRecord, SourceLoss
from cpt.evaluate.forgetting import compare
from cpt.evaluate.show import as_tables


def evaluation(label: str, loss: float, answers: str) -> EvaluationRecord:
    correct = {str(index): answer == "1" for index, answer in enumerate(answers)}
    share = sum(correct.values()) / len(correct)
    score = BenchmarkScore(name="section", group="domain", accuracy=share, standard_error=0.0, items=len(correct), chance=0.25, correct=correct)
    losses = [SourceLoss(name="dictionary", group="general", loss=loss, bits_per_byte=loss / 3, tokens=2048, text_sha256="")]
    return EvaluationRecord(label=label, step=0, weights="", losses=losses, benchmarks=[score], seconds=0.0)


def test_everything_fits_into_eighty_columns() -> None:
    shown = io.StringIO()
    for table in as_tables(compare(evaluation("before", 3.9, "1" * 50 + "0" * 50), evaluation("after", 3.75, "0" * 10 + "1" * 70 + "0" * 20))):
        Console(file=shown, width=80).print(table)
    text = shown.getvalue()
    assert "…" not in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["dictionary"] == ["dictionary", "general", "3.9000", "3.7500", "-0.1500", "1.300", "->", "1.250"]
    assert rows["section"] == ["section", "(domain)", "50.0", "70.0", "+20.0", "±", "6.0", "10", "30", "100", "better"]
